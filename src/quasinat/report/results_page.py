"""A folder of result files as pages: Markdown, a LaTeX file for each table, and one HTML page, from the files alone."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quasinat.errors import InputError
from quasinat.files import read_json, write_text
from quasinat.report.figures import standalone
from quasinat.report.table_content import Result, blocks_of, calibration_of, described, legend, strengths_of, why_empty
from quasinat.report.table_figures import map_figure, sweep_figure
from quasinat.report.table_latex import table_latex
from quasinat.report.table_sheet import table_markdown
from quasinat.report.templates import environment, style

SCHEMA = 1
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FIGURES: dict[str, Callable[[Result], str | None]] = {"sweep": sweep_figure, "map": map_figure}
"""What is drawn of a table where it has what that needs, by the end of the file's name."""


def write_results(folder: Path, out: Path) -> list[Path]:
    """Writes `OUT/results.md`, `OUT/index.html` and, of each table, `OUT/<table>-<preset>.tex` and its figures as SVG.

    All of it is a pure function of the result files below `folder`.

    Returns:
        What was written.

    Raises:
        InputError: there is no result file of a table below the folder, or one of another schema, or damaged.
        OutputError: a page cannot be written.
    """
    results = tables_below(folder)
    try:
        pages = _pages(results, out)
        for text in pages.values():
            text.encode()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        problem = f"a result file below {folder} is not as `quasinat run` writes it ({type(error).__name__}: {error})"
        raise InputError(problem, "run the table again") from None
    for path, text in pages.items():
        write_text(path, text)
    return list(pages)


def _pages(results: Sequence[Result], out: Path) -> dict[Path, str]:
    pages = {out / f"{result['table']}-{result['preset']}.tex": table_latex(result) for result in results}
    pages[out / "results.md"] = "\n".join(table_markdown(result) for result in results)
    pages[out / "index.html"] = results_html(results)
    for result in results:
        for name, drawn in figures_of(result).items():
            pages[out / f"{result['table']}-{result['preset']}-{name}.svg"] = standalone(drawn)
    return pages


def tables_below(folder: Path) -> list[Result]:
    """The tables' result files below a folder, by table and preset; other JSON files are passed over.

    Raises:
        InputError: see `write_results`.
    """
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content: dict[str, Any] = dict(read_json(path))
        except InputError:
            continue
        if not {"table", "threat", "rows", "columns", "preset"} <= content.keys():
            continue
        for key in ("table", "preset"):  # they name the pages' files
            if not (isinstance(content[key], str) and _PLAIN.fullmatch(content[key])):
                raise InputError(f"{path} has a {key} {content[key]!r} that names no file", "run it again")
        if content.get("schema") != SCHEMA:
            raise InputError(f"{path} has schema {content.get('schema')}, this version reads {SCHEMA}", "run it again")
        found.append(content)
    if not found:
        raise InputError(f"there is no result file of a table below {folder}", "make one with `quasinat run`")
    return sorted(found, key=lambda result: (result["table"], result["preset"]))


def results_html(results: Sequence[Result]) -> str:
    """The page, which needs nothing beside it: a pure function of the result files."""
    from markupsafe import Markup

    tables = [
        {
            "key": f"{result['table']}-{result['preset']}",
            "title": f"{result['title']}, preset {result['preset']}",
            "described": described(result),
            "blocks": blocks_of(result),
            "legend": legend(result),
            "reasons": why_empty(result),
            "figures": [Markup(drawn) for drawn in figures_of(result).values()],
            "calibration": calibration_of(result),
            "strengths": strengths_of(result),
            "made": made_by(result),
        }
        for result in results
    ]
    return environment().get_template("results.html").render(css=style(), tables=tables)


def figures_of(result: Result) -> dict[str, str]:
    """The figures of a table as inline SVG, by their names."""
    return {name: drawn for name, draw in FIGURES.items() if (drawn := draw(result)) is not None}


def made_by(result: Result) -> str:
    """One line: the seed, the code and the libraries that made a result."""
    made = result["provenance"]
    return ", ".join(
        [
            f"seed {result['settings']['seed']}",
            *(f"{name} {made[name]}" for name in ("quasinat", "torch", "device") if name in made),
            *([f"code {str(made['code'])[:12]}"] if "code" in made else []),
        ]
    )
