"""quasinat run: the paper's tables with every defence, re-run on real images."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quasinat.cli.bars import Bars

EXAMPLE = """Every cell is kept as soon as it is there; the same command again goes on.

Example:  quasinat run table1 --preset smoke --root DIR --out tables

Four rows at a time: --workers 4; on a Ray cluster, whose nodes all see DIR and OUT: --engine ray --workers 1,64

One row:  quasinat run table1 table5 --only pixel-defend --root DIR --out tables

DIR holds cifar-10-batches-py; for ImageNet-10 imagenet/train, a folder for each WordNet id, or else imagenet10/train
and imagenet10/val, ten classes; for table 7 imagenet/train and imagenet/val, or else imagenet-val and
imagenet10/train. The result file says which was read."""


def run(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE...", help="table1, table2a, ...; or all.")],
    root: Annotated[Path, typer.Option(help="Where the image sets are.")],
    out: Annotated[Path, typer.Option(help="Output folder; the folder of an unfinished run is continued.")],
    preset: Annotated[
        str, typer.Option(help="smoke (minutes a row), small (hours), medium (days), or full: on a GPU.")
    ] = "small",
    only: Annotated[
        str | None,
        typer.Option(metavar="ROW[/COLUMN]", help="These cells only, as stl/bim or stl/bim-0.03; * matches any text."),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Of --workers: local, or ray (the extra of that name), whose nodes all see the folders.")
    ] = "local",
    workers: Annotated[
        str, typer.Option(metavar="MIN,MAX", help="Rows at once: actors of --engine ray; MAX processes of local.")
    ] = "1,1",
    shard: Annotated[str | None, typer.Option(help="i/n: this share of the rows only; then run it without.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells, each with its hash and whether it is done; run nothing.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights: Annotated[
        Path | None, typer.Option(help="MobileNetV2's weights, a .safetensors file: of tables 3 and 7.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything; other than 0 it is part of the files' names.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh where --out holds a run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results instead of the tables.")] = False,
) -> None:
    """Fill the paper's tables: every defence against its attacks, beside what the paper prints.

    Writes TABLE-PRESET.json, TABLE-PRESET.md and, of each image, TABLE-PRESET.npz for each table.
    """
    from dataclasses import replace

    from quasinat.cli.evaluate import share
    from quasinat.cli.project import worker_range
    from quasinat.errors import QuasinatError, UsageError
    from quasinat.experiments.table_checks import check_table
    from quasinat.experiments.table_engines import Grid, fill_tables
    from quasinat.experiments.table_places import content_hash, is_done, places, share_of
    from quasinat.experiments.table_run import run_tables
    from quasinat.experiments.table_settings import table_settings
    from quasinat.experiments.table_spec import table_named, table_names
    from quasinat.files import write_text
    from quasinat.report.table_sheet import table_markdown

    names = table_names() if tables == ["all"] else tables
    specified = [table_named(name) for name in names]
    for table in specified:
        check_table(table)
    settings = table_settings(preset)
    label = preset
    if seed:
        settings, label = replace(settings, seed=seed), f"{preset}-seed-{seed}"
    own = share(shard)
    if dry_run:
        for place in share_of(places(specified, only), own):
            state = "done" if is_done(place, label, settings, out) else "to do"
            print(f"{place.table.name}  {place.row.key}/{place.column}  {content_hash(place, settings)[:12]}  {state}")
        return
    least, most = worker_range(workers)
    with Bars() as bars:
        if most > 1 or engine != "local":
            if shard is not None or overwrite:
                option = "--shard" if shard is not None else "--overwrite"
                raise UsageError(f"{option} is no option of several workers", "leave one of them out")
            columns = (only or "*").partition("/")[2] or "*"
            grid = Grid(tuple(specified), label, settings, root.resolve(), out.resolve(), device, weights, columns)
            fill_tables(grid, only=only, engine=engine, workers=(least, most), progress=bars)
        results = run_tables(
            specified,
            label,
            settings,
            root,
            out,
            only=only,
            shard=own,
            device=device,
            weights=weights,
            overwrite=overwrite,
            progress=bars,
        )
    for name, result in results.items():
        write_text(out / f"{name}-{label}.md", table_markdown(result))
    if as_json:
        print(json.dumps(results))
    else:
        print("\n".join(table_markdown(result) for result in results.values()))
    failed = [
        f"{name} {row['key']}/{column}: {cell['reason']}"
        for name, result in results.items()
        for row in result["rows"]
        for column, cell in row["cells"].items()
        if cell["status"] == "failed"
    ]
    if failed:
        first = f"{len(failed)} of the cells failed, the first of them {failed[0]}"
        raise QuasinatError(first, "mend that; the same command tries them again")


run.__doc__ = f"{run.__doc__}\n\n{EXAMPLE}"
