"""quasinat data: the image sets that can be fetched."""

from pathlib import Path
from typing import Annotated

import typer

from quasinat.cli.bars import Bars

data = typer.Typer(
    help="Fetch image sets: downloads go on where they were cut, and are checked.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@data.callback()
def about() -> None:
    """Fetch image sets: downloads go on where they were cut, and are checked."""


@data.command()
def cifar10(
    dest: Annotated[Path, typer.Option(help="The folder to put cifar-10-batches-py into.")],
    url: Annotated[str | None, typer.Option(help="Of the archive, where a copy is nearer than the original.")] = None,
) -> None:
    """Download CIFAR-10 (163 MB) and unpack it; what is there already and whole is left alone.

    Example:  quasinat data cifar10 --dest data
    """
    from quasinat.data.fetch import CIFAR10_BYTES, CIFAR10_URL, fetch_cifar10

    with Bars() as bars, bars.task("download CIFAR-10", CIFAR10_BYTES) as report:
        folder = fetch_cifar10(dest, url=url or CIFAR10_URL, report=report)
    print(folder)
