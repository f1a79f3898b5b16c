"""quasinat report: pages of the tables' result files."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of the result files, at any depth.")],
    out: Annotated[Path, typer.Option(help="The folder to write the pages into.")],
) -> None:
    """Make the pages of a run's tables: Markdown, LaTeX and HTML, from the result files alone.

    Example:  quasinat report results --out page
    """
    from quasinat.report.results_page import write_results

    for path in write_results(folder, out):
        print(path)
