"""The commands."""

from typing import Annotated

import typer

import quasinat
from quasinat.cli.demo import demo
from quasinat.cli.info import info
from quasinat.cli.learn import learn
from quasinat.cli.project import project
from quasinat.cli.show import show

app = typer.Typer(
    name="quasinat",
    help="Adversarial defence by stratified convolutional sparse coding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(demo)
app.command()(info)
app.command()(project)
app.add_typer(learn, name="learn")
app.add_typer(show, name="show")


def _version(wanted: bool) -> bool:
    if wanted:
        print(quasinat.__version__)
        raise typer.Exit
    return wanted


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Adversarial defence by stratified convolutional sparse coding."""
