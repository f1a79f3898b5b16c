"""The table of accuracies: the same rows for the page, the terminal and Markdown."""

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from quasinat.report.result_file import Results, check
from quasinat.report.wording import NOT_RUN, column_title, interval, percent

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TableCell:
    """An accuracy in percent and its 95 % interval; `not run` with an empty interval where there is none."""

    value: str
    interval: str

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


@dataclass(frozen=True)
class TableRow:
    """A row as it is written: `n` is the number of images, or its range; `cells` follow the columns."""

    key: str
    block: str
    label: str
    role: str
    n: str
    cells: tuple[TableCell, ...]


def table_cells(results: Results) -> list[TableRow]:
    """The rows of the table, as text, in the order of the result file.

    Args:
        results: a run's result file, as `read_json` gives it.

    Raises:
        InputError: not a result file of this schema.
    """
    return [
        TableRow(
            key=row["key"],
            block=row["block"],
            label=row["label"],
            role=row["role"],
            n=_count([cell["n"] for cell in row["cells"].values()]),
            cells=tuple(_cell(row["cells"].get(column)) for column in results["columns"]),
        )
        for row in check(results)["rows"]
    ]


def _cell(cell: dict[str, float] | None) -> TableCell:
    return TableCell(NOT_RUN, "") if cell is None else TableCell(percent(cell["value"]), interval(cell))


def _count(counts: list[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return f"{low}" if low == high else f"{low}–{high}"


def column_titles(results: Results) -> list[str]:
    """The titles of the columns of accuracies."""
    return [column_title(column) for column in results["columns"]]


def blocks(rows: list[TableRow]) -> list[tuple[str, list[TableRow]]]:
    """The rows by block, in their order."""
    return [(block, list(group)) for block, group in groupby(rows, key=lambda row: row.block)]


def terminal_table(results: Results) -> "Table":
    """The table for a terminal, a section for each block; 80 columns hold it.

    Args:
        results: a run's result file, as `read_json` gives it.

    Raises:
        InputError: not a result file of this schema.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    rows = table_cells(results)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        caption="Accuracy in %, below it the 95 % Wilson interval. Control rows transform no image.",
        caption_justify="left",
    )
    table.add_column("", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    for title in column_titles(results):
        table.add_column(title.replace("-", "-\n", 1), justify="right", no_wrap=True)
    for block, group in blocks(rows):
        table.add_section()
        table.add_row(f"[bold]{escape(block)}[/bold]")
        for row in group:
            cells = [f"{cell.value}\n{cell.interval.strip('[]').replace(', ', '–')}".rstrip() for cell in row.cells]
            style = "italic" if row.role == "control" else None
            table.add_row(escape(row.label), row.n, *(escape(cell) for cell in cells), style=style)
    return table


def markdown_table(results: Results) -> str:
    """The table in Markdown, accuracies in percent with their 95 % intervals.

    Args:
        results: a run's result file, as `read_json` gives it.

    Raises:
        InputError: not a result file of this schema.
    """
    rows = table_cells(results)
    titles = ["attack", "classifier", "n", *column_titles(results)]
    lines = [titles, ["---", "---", *(["---:"] * (len(titles) - 2))]]
    lines += [[_plain(row.block), _plain(row.label), row.n, *(str(cell) for cell in row.cells)] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
