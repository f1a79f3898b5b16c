"""The commands."""

from typing import Annotated

import typer

import quasinat
from quasinat.cli.certify import certify
from quasinat.cli.data import data
from quasinat.cli.defend import defend
from quasinat.cli.demo import demo
from quasinat.cli.evaluate import evaluate
from quasinat.cli.export import export
from quasinat.cli.info import info
from quasinat.cli.learn_defences import learn
from quasinat.cli.project import project
from quasinat.cli.report import report
from quasinat.cli.run import run
from quasinat.cli.serve import serve
from quasinat.cli.show import show
from quasinat.cli.train import train

app = typer.Typer(
    name="quasinat",
    help="Adversarial defence by stratified convolutional sparse coding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(certify)
app.command()(defend)
app.command()(demo)
app.command()(evaluate)
app.command()(export)
app.command()(info)
app.command()(project)
app.command()(report)
app.command()(run)
app.command()(serve)
app.command()(train)
app.add_typer(data, name="data")
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
