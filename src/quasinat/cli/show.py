"""quasinat show: pictures of a layer's filters, an image's codes, the strata with their numbers, and the defences."""

import typer

from quasinat.cli.show_codes import codes
from quasinat.cli.show_defences import defences
from quasinat.cli.show_filters import filters
from quasinat.cli.show_strata import strata

show = typer.Typer(
    help="Look into a layer: its filters, an image's sparse codes, its strata; beside other defences.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
show.command()(filters)
show.command()(codes)
show.command()(strata)
show.command()(defences)
