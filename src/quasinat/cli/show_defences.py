"""quasinat show defences: what every defence of a table makes of the same adversarial images."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quasinat.cli.bars import Bars


def defences(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Whose defences: table1, table2a, ...")],
    root: Annotated[Path, typer.Option(help="Where the image sets are.")],
    run: Annotated[Path, typer.Option(help="The output folder of quasinat run; what it lacks is made there.")],
    out: Annotated[Path, typer.Option(help="The picture: a .png, .svg or .pdf file.")],
    preset: Annotated[str, typer.Option(help="Of that run: smoke or small.")] = "small",
    attack: Annotated[str, typer.Option(help="One of the table's columns.")] = "fgsm-0.08",
    only: Annotated[str | None, typer.Option(metavar="ROW", help="These defences only; * matches any text.")] = None,
    images: Annotated[int, typer.Option(help="How many test images.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    weights: Annotated[Path | None, typer.Option(help="Of that run: MobileNetV2's, of tables 3 and 7.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of that run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is under the pictures as JSON.")] = False,
) -> None:
    """Adversarial images, what each defence makes of them, and the clean ones, as in the paper's figures 3 and 4.

    Example:  quasinat show defences table1 --preset smoke --root DIR --run tables --out defences.png

    Figure 11, one defence:  quasinat show defences table5 --only stl-cluster --root DIR --run tables --out a.png

    Figure 5, each lambda:  quasinat show defences figure5 --root DIR --run tables --out a.png
    """
    from dataclasses import replace

    from quasinat.experiments.defence_pictures import defence_pictures
    from quasinat.experiments.table_run import open_parts
    from quasinat.experiments.table_settings import table_settings
    from quasinat.experiments.table_spec import table_named
    from quasinat.report.defence_sheet import defence_sheet, described
    from quasinat.report.filter_sheet import picture_format

    picture_format(out)
    chosen, settings = table_named(table), table_settings(preset)
    if seed is not None:
        settings = replace(settings, seed=seed)
    with Bars() as bars:
        parts = open_parts(chosen.data, preset, settings, root, run, device=device, weights=weights, progress=bars)
        pictures = defence_pictures(parts, chosen, attack, images, only)
    behind = "the defence's own" if chosen.threat == "retrained" else "the vanilla"
    note = f"Under a picture: what {behind} classifier sees in it. The attack saw the vanilla classifier."
    defence_sheet(pictures, title=f"{chosen.data}, {attack}: what the defences make of it", note=note).save(out)
    if as_json:
        print(json.dumps(described(pictures)))
    else:
        print(f"picture: {out}")
