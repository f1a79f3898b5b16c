"""The page of a run: one HTML file that needs nothing beside it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from quasinat.files import read_json, read_tensors, write_text
from quasinat.report.figures import learning_figure, trade_off_figure
from quasinat.report.gallery import dictionaries, patch_grid, photographs
from quasinat.report.result_file import Results, attack_columns, check, layers
from quasinat.report.sentences import sentences
from quasinat.report.table import blocks, column_titles, table_cells
from quasinat.report.templates import environment, style
from quasinat.report.timings import seconds_by_group
from quasinat.report.wording import column_title, decibels, duration, interval, listed, percent


def write_page(folder: Path) -> Path:
    """Makes `page.html` from the result file and the pictures of a run in `folder`, and returns its path.

    Raises:
        InputError: no result file or pictures, damaged ones, or ones of another schema.
        OutputError: the page cannot be written.
    """
    results = check(read_json(folder / "results.json"))
    pictures, _ = read_tensors(folder / "steps" / "pictures.safetensors")
    path = folder / "page.html"
    write_text(path, page(results, pictures))
    return path


def page(results: Results, pictures: Mapping[str, Tensor]) -> str:
    """The page as text: a pure function of a result file and its pictures. Pictures that are missing are left out.

    Args:
        results: a run's result file, as `read_json` gives it.
        pictures: by name, `C H W` in [0, 1].

    Raises:
        InputError: not a result file of this schema.
    """
    check(results)
    templates = environment()
    templates.filters |= {
        "percent": percent,
        "decibels": decibels,
        "duration": duration,
        "column": column_title,
        "maths": _maths,
        "unbroken": _unbroken,
    }
    return templates.get_template("page.html").render(
        css=style(),
        results=results,
        layers=layers(results),
        columns=results["columns"],
        attacks=attack_columns(results),
        titles=column_titles(results),
        blocks=blocks(table_cells(results)),
        findings=sentences(results),
        interval=interval,
        patches=patch_grid(results, pictures),
        photographs=photographs(results, pictures),
        dictionaries=dictionaries(results, pictures),
        trade_off=_markup(trade_off_figure(results)),
        learning=_markup(learning_figure(results)),
        timings=seconds_by_group(results["seconds"]),
        memory=_memory(results["peak_memory"]),
        size=_size(results["data"]["shape"]),
        classes=listed([str(name) for name in results["data"]["classes"]]),
    )


def _markup(svg: str | None) -> Any:
    from markupsafe import Markup

    return None if svg is None else Markup(svg)


def _maths(text: str) -> Any:
    """The paper's symbols in a plain caption, as they are set: x in italics, its index below the line."""
    from markupsafe import Markup, escape

    said = str(escape(text)).replace("T(x)", "T(<i>x</i>)").replace("x_adv", "<i>x</i><sub>adv</sub>")
    return Markup(said)


def _unbroken(text: str) -> Any:
    """A sentence whose columns (`CW-0.03`) and numbers are never broken over a line."""
    from markupsafe import Markup, escape

    kept = re.sub(r"\b[A-Za-z]+-[\d.]*\d", r'<span class="whole">\g<0></span>', str(escape(text)))
    return Markup(re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", kept))


def _memory(peak: int) -> str:
    return f"{peak / 1e9:.2f} GB" if peak else "not known on this system"


def _size(shape: list[int]) -> str:
    channels, height, width = shape
    return f"{height} × {width} pixels, {'grey' if channels == 1 else 'colour'}"
