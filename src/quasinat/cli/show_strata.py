"""quasinat show strata: what the strata hold, how they fare under attack, and what they are worth."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from quasinat.cli.bars import Bars
from quasinat.experiments import DemoSettings


def strata(
    layer: Annotated[Path, typer.Argument(metavar="LAYER", help="The file of a layer with strata.")],
    out: Annotated[Path, typer.Option(help="Output folder; the folder of an unfinished run is continued.")],
    data: Annotated[str, typer.Option(help="photographs (built in), cifar10 or folder.")] = "photographs",
    root: Annotated[str | None, typer.Option(help="Where the images of cifar10 or folder are.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels: 32, 48 or 64; any for a folder.")] = None,
    colour: Annotated[bool | None, typer.Option("--colour", help="Photographs in colour, mean left in.")] = None,
    convert: Annotated[str | None, typer.Option(help="Convert a folder's images: rgb or grey.")] = None,
    images: Annotated[int, typer.Option(help="Test images, drawn at random.")] = 500,
    universal: Annotated[Path | None, typer.Option(help="A layer with one dictionary, to compare with.")] = None,
    network: Annotated[str, typer.Option(help="The classifier to attack: vgg-small or vgg16.")] = "vgg-small",
    epochs: Annotated[int, typer.Option(help="Of its training.")] = 8,
    model: Annotated[Path | None, typer.Option(help="Its weights (safetensors), instead of training one.")] = None,
    samples: Annotated[str, typer.Option(help="Images shown of a stratum: typical or random.")] = "typical",
    seed: Annotated[int, typer.Option(help="Of everything: same seed, same numbers.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh where --out holds a run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print strata.json instead of the tables.")] = False,
) -> None:
    """Sizes, sample images and filters of the strata, and how often an attack leaves an image in its own.

    A vanilla classifier is trained and attacked; the layer plays no part in that, nor do attacked images in any fit.

    Writes strata.json, strata.md and strata.png.

    Example:  quasinat show strata LAYER.stl --universal ONE.stl --data cifar10 --root DIR --out strata
    """
    from rich.console import Console

    from quasinat.experiments.strata_report import image_set, run_strata_report, strata_of
    from quasinat.layer import SparseTransformationLayer
    from quasinat.report.strata_sheet import check_samples, strata_terminal, write_strata

    settings = image_settings(
        data=data,
        root=root,
        image_size=image_size,
        colour=colour,
        convert=convert,
        network=network,
        epochs=epochs,
        seed=seed,
    )
    check_samples(samples)
    keep_apart(out, layer, universal, model)
    loaded = SparseTransformationLayer.load(layer)
    strata_of(loaded)
    compared = None if universal is None else SparseTransformationLayer.load(universal)
    with Bars() as bars:
        report, shown = run_strata_report(
            loaded,
            image_set(settings),
            settings,
            out,
            images=images,
            model=model,
            universal=compared,
            progress=bars,
            overwrite=overwrite,
        )
    write_strata(out, report, loaded, shown, samples=samples)
    if as_json:
        print(json.dumps(report))
    else:
        console = Console()
        for table in strata_terminal(report):
            console.print(table)
            console.print()
        console.print(f"picture: {out / 'strata.png'}", soft_wrap=True, highlight=False)


def image_settings(**given: Any) -> DemoSettings:
    """The settings of an image set and a classifier; what is None stays as it is by default.

    Raises:
        UsageError: a value that is unknown, out of range or of another image set.
    """
    return DemoSettings(**{name: value for name, value in given.items() if value is not None})


def keep_apart(folder: Path, *files: Path | None) -> None:
    """Raises a `UsageError` where a file that is read lies in the folder that may be cleared."""
    from quasinat.errors import UsageError

    for file in files:
        if file is not None and folder.resolve() in file.resolve().parents:
            raise UsageError(f"{file} lies in the output folder {folder}", "choose another --out")
