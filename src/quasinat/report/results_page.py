"""A folder of result files as pages: Markdown, a LaTeX file for each table, and one HTML page, from the files alone."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quasinat.errors import InputError
from quasinat.files import parsed_json, write_text
from quasinat.report.figures import standalone
from quasinat.report.table_content import (
    Result,
    blocks_of,
    calibration_of,
    described,
    legend,
    name_of,
    strengths_of,
    why_empty,
)
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
        InputError: there is no result file of a table below the folder, or one of another schema, or damaged, or two of
            the same table and preset; names the file.
        OutputError: a page cannot be written.
    """
    results = tables_below(folder)
    pages: dict[Path, str] = {}
    texts, sections = [], []
    for path, result in results.items():
        with _as_written(path):
            pages |= _pages_of(result, out)
            texts.append(table_markdown(result))
            sections.append(_section(result))
            "".join([texts[-1], *pages.values()]).encode()
    pages[out / "results.md"] = "\n".join(texts)
    pages[out / "index.html"] = _html(sections)
    for page, text in pages.items():
        write_text(page, text)
    return list(pages)


@contextmanager
def _as_written(path: Path) -> Iterator[None]:
    """Whatever a result file's content makes the report fail with names the file."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        problem = f"{path} is not as `quasinat run` writes it ({type(error).__name__}: {error})"
        raise InputError(problem, "run the table again") from None


def _pages_of(result: Result, out: Path) -> dict[Path, str]:
    """The files that are of one table alone."""
    pages = {out / f"{name_of(result)}.tex": table_latex(result)}
    for name, drawn in figures_of(result).items():
        pages[out / f"{name_of(result)}-{name}.svg"] = standalone(drawn)
    return pages


def tables_below(folder: Path) -> dict[Path, Result]:
    """The tables' result files below a folder, by table and preset; JSON of another kind is passed over.

    Raises:
        InputError: see `write_results`.
    """
    found: dict[str, tuple[Path, Result]] = {}
    for path in sorted(folder.rglob("*.json")):
        content = _table_in(path)
        if content is None:
            continue
        name = name_of(content)
        if name in found:
            problem = f"{found[name][0]} and {path} are both {content['table']} at the preset {content['preset']}"
            raise InputError(problem, "move one of them out of the folder, or report on a folder with one of them")
        found[name] = path, content
    if not found:
        raise InputError(f"there is no result file of a table below {folder}", "make one with `quasinat run`")
    return dict(sorted(found.values(), key=lambda pair: (pair[1]["table"], pair[1]["preset"])))


def _table_in(path: Path) -> Result | None:
    """The table's result that a file holds; None where it is JSON of another kind.

    Raises:
        InputError: it is no whole JSON, lacks a part, or is of another schema.
    """
    try:
        content: Any = parsed_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "run the table again, or move the file out of the folder if it is no result"
        raise InputError(f"{path} is damaged: it is not readable JSON ({error})", remedy) from None
    if not isinstance(content, dict) or not {"table", "preset"} <= content.keys():
        return None
    for key in ("table", "preset"):  # they name the pages' files
        if not (isinstance(content[key], str) and _PLAIN.fullmatch(content[key])):
            raise InputError(f"{path} has a {key} {content[key]!r} that names no file", "run it again")
    if content.get("schema") != SCHEMA:
        raise InputError(f"{path} has schema {content.get('schema')}, this version reads {SCHEMA}", "run it again")
    for key in ("threat", "rows", "columns"):
        if key not in content:
            raise InputError(f"{path} is damaged: it lacks {key!r}", "run the table again")
    return content


def results_html(results: Sequence[Result]) -> str:
    """The page, which needs nothing beside it: a pure function of the result files."""
    return _html([_section(result) for result in results])


def _html(sections: Sequence[Mapping[str, Any]]) -> str:
    return str(environment().get_template("results.html").render(css=style(), tables=sections))


def _section(result: Result) -> dict[str, Any]:
    """What the page's template needs of a table."""
    from markupsafe import Markup

    return {
        "key": name_of(result),
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
