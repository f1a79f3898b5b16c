"""quasinat project: files of images through a layer or another defence, into files."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from quasinat.cli.bars import Bars
from quasinat.data.shard_formats import SHARD_FORMATS
from quasinat.errors import UsageError
from quasinat.experiments.precision import sentence
from quasinat.experiments.projection import project_files
from quasinat.experiments.shard_projection import project_shards
from quasinat.experiments.transforms import named_transform

EXAMPLE = """Every file is written whole; the same command again continues. PNG files hold round(255 x).

Grey images become RGB for a layer of three channels, and RGB images grey (ITU-R 601) for a layer of one.

A defence that takes any channels leaves those of shards as they are; image files become RGB.

Transparency is put over white; EXIF turns are not applied.

Images that cannot be used are left out, listed at the end and in OUT/manifest.json; the exit status is then 1.

Example:  quasinat project photos projected --layer my-demo/stratified.stl

CIFAR-10: quasinat project cifar-10-batches-py projected --split train --layer my-demo/stratified.stl

A defence: quasinat project photos quilted --defence quilting --artefact patches.safetensors

A cluster: quasinat project s3://bucket/tars s3://bucket/projected --layer a.stl --engine ray --workers 2,64

With options: quasinat project photos smooth --defence tvm:weight=0.05,drop=0.3"""


def project(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="Images at any depth, cifar-10-batches-py, shards of ours; tars, Parquet."),
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Output folder; an unfinished one is continued.")],
    layer: Annotated[Path | None, typer.Option(help="The file of the layer.")] = None,
    defence: Annotated[
        str | None, typer.Option(metavar="NAME[:OPTION=VALUE,...]", help="Another defence than the layer.")
    ] = None,
    artefact: Annotated[Path | None, typer.Option(help="The file of what that defence has learned.")] = None,
    sparsity: Annotated[float | None, typer.Option("--lambda", help="Another lambda than the layer's.")] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="png or shards; png for image files and shards for the others by default. webdataset or parquet: of "
            "image files, tars or Parquet tables, anywhere that fsspec reaches; webdataset by default for --engine ray."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Of webdataset and parquet: local, or ray (the extra of that name).")
    ] = "local",
    workers: Annotated[
        str, typer.Option(metavar="MIN,MAX", help="Actors of --engine ray; MAX processes of --engine local.")
    ] = "1,1",
    precision: Annotated[
        str,
        typer.Option(
            help="Of a layer's codes while it looks for them: float32, or float16 or bfloat16, which take half the "
            "memory on a GPU; the error is then measured and printed."
        ),
    ] = "float32",
    split: Annotated[str | None, typer.Option(help="Of CIFAR-10: train or test; test by default.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images projected together, at most; as many as the memory holds by default.")
    ] = None,
    shard_size: Annotated[int, typer.Option(help="Images in a shard, all of one size; fewer of large ones.")] = 1000,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be used.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove an earlier run's images from OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the PSNR of every image.")] = False,
) -> None:
    """Send the images of a folder through a layer or another defence and write them, keeping names and structure."""
    transform = named_transform(layer, defence, artefact, sparsity, precision)
    if transform is None:
        raise UsageError("no transformation is named", "pass --layer FILE, or --defence NAME")
    if engine != "local" or format in SHARD_FORMATS:
        if split is not None or overwrite:
            option = "--overwrite" if overwrite else "--split"
            raise UsageError(f"{option} is no option of tars and tables", "leave it out")
        load = partial(named_transform, layer, defence, artefact, sparsity, precision)
        least, most = worker_range(workers)
        with Bars() as bars:
            made = project_shards(
                load,  # type: ignore[arg-type]
                source,
                out,
                format=format or "webdataset",
                engine=engine,
                workers=(least, most),
                batch_size=batch_size,
                shard_size=shard_size,
                strict=strict,
                progress=bars,
            )
        counts: dict[str, object] = {"images": made.images, "shards": made.shards, "failed": len(made.failed)}
        if made.precision:
            counts[precision] = sentence(made.precision)
        print(json.dumps(made.as_json()) if as_json else "\n".join(f"{name:<16}{n}" for name, n in counts.items()))
        _tell([reason for _, reason in made.failed])
        return
    with Bars() as bars:
        report = project_files(
            transform,
            Path(source),
            Path(out),
            format=format,
            split=split,
            batch_size=batch_size,
            shard_size=shard_size,
            strict=strict,
            overwrite=overwrite,
            progress=bars,
        )
    mean = report.mean_psnr()
    lines = {
        "images written": report.written,
        "already there": report.skipped,
        "failed": len(report.failed),
        "mean PSNR": "none differs from its input" if mean is None else f"{mean:.2f} dB",
        "seconds": f"{report.seconds:.1f}",
    }
    if report.precision:
        lines[precision] = sentence(report.precision)
    print(json.dumps(report.as_json()) if as_json else "\n".join(f"{name:<16}{line}" for name, line in lines.items()))
    _tell([failure.reason for failure in report.failed])


def _tell(reasons: list[str]) -> None:
    """Names the images that were left out; the exit status is then 1."""
    for reason in reasons:
        print(f"quasinat: left out: {reason}", file=sys.stderr)
    if reasons:
        raise typer.Exit(1)


def worker_range(text: str) -> tuple[int, int]:
    """`2,8` as (2, 8), and `4` as (4, 4).

    Raises:
        UsageError: it is neither, or holds no worker.
    """
    try:
        least, most = (int(part) for part in (text.split(",") if "," in text else (text, text)))
    except ValueError:
        least = most = 0
    if not 1 <= least <= most:
        raise UsageError(f"--workers {text} is no range", "give the least and the most, as 1,4")
    return least, most


project.__doc__ = f"{project.__doc__}\n\n{EXAMPLE}"
