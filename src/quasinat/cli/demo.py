"""quasinat demo: the whole method on real images, from data to a page."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quasinat.cli.bars import Bars
from quasinat.experiments import demo_settings, run_demo

EXAMPLE = """Example:  quasinat demo --out my-demo

CIFAR-10: quasinat demo --data cifar10 --root DIR  (the folder of cifar-10-batches-py)

A folder: quasinat demo --data folder --root DIR --image-size 64  (one folder of images a class)"""


def demo(
    out: Annotated[Path, typer.Option(help="Output folder; the folder of an unfinished run is continued.")] = Path(
        "quasinat-demo"
    ),
    preset: Annotated[str, typer.Option(help="tiny (seconds), small (minutes) or full (the paper's sizes).")] = "small",
    data: Annotated[str | None, typer.Option(help="photographs (built in), cifar10 or folder.")] = None,
    root: Annotated[str | None, typer.Option(help="Where the images of cifar10 or folder are.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels: 32, 48 or 64; any for a folder.")] = None,
    colour: Annotated[bool | None, typer.Option("--colour", help="Photographs in colour, mean left in.")] = None,
    convert: Annotated[str | None, typer.Option(help="Convert a folder's images: rgb or grey.")] = None,
    train_per_class: Annotated[int | None, typer.Option(help="Training images of each class.")] = None,
    test_per_class: Annotated[int | None, typer.Option(help="Test images of each class.")] = None,
    network: Annotated[str | None, typer.Option(help="The classifier: vgg-small or vgg16.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every classifier.")] = None,
    filters: Annotated[int | None, typer.Option(help="K, the filters of a dictionary; 64 in the paper.")] = None,
    filter_size: Annotated[int | None, typer.Option(help="S, their side in pixels.")] = None,
    sparsity: Annotated[float | None, typer.Option("--lambda", help="lambda, the weight of the l1 term.")] = None,
    split: Annotated[str | None, typer.Option(help="tikhonov (low-pass passes through) or none (Eq. 2).")] = None,
    strata: Annotated[int | None, typer.Option(help="M, the number of strata.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything: same seed, same numbers.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh where --out holds a run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result file instead of the table.")] = False,
) -> None:
    """Learn, project, retrain, attack, measure, look: the whole method on real images, in one page."""
    settings = demo_settings(
        preset,
        data=data,
        root=root,
        image_size=image_size,
        colour=colour,
        convert=convert,
        train_per_class=train_per_class,
        test_per_class=test_per_class,
        network=network,
        epochs=epochs,
        filters=filters,
        filter_size=filter_size,
        sparsity=sparsity,
        split=split,
        strata=strata,
        seed=seed,
    )
    from rich.console import Console

    from quasinat.report import terminal_table, write_page

    with Bars() as bars:
        results = run_demo(settings, out, progress=bars, overwrite=overwrite)
        page = write_page(out)
    if as_json:
        print(json.dumps(results))
    else:
        console = Console()
        console.print(terminal_table(results))
        console.print(f"page: {page}", soft_wrap=True, highlight=False)


demo.__doc__ = f"{demo.__doc__}\n\n{EXAMPLE}"
