"""quasinat show: pictures of a layer's filters, of one image's codes, and of the strata with their numbers."""

import typer

from quasinat.cli.show_codes import codes
from quasinat.cli.show_filters import filters
from quasinat.cli.show_strata import strata

show = typer.Typer(
    help="Look into a layer: its filters, an image's sparse codes, its strata.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
show.command()(filters)
show.command()(codes)
show.command()(strata)
