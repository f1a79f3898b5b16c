"""The tables of a white-box evaluation, as Markdown and for the terminal: pure functions of its result file."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from quasinat.errors import InputError
from quasinat.report.wording import interval, percent

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
MODELS = {"base": "undefended network", "adversarial": "adversarially trained network", "defended": "defended"}
KINDS = {
    "blind": "without the defended model's gradient",
    "gradient": "along a gradient of the defended model",
    "layer": "aimed at the layer",
}
_TOP = ("settings", "provenance", "data", "models", "clean", "rows", "worst_case", "checks", "headline", "withheld")


def check(result: dict[str, Any]) -> dict[str, Any]:
    """The result itself, once it is known to be one of this schema.

    Raises:
        InputError: it is not; names what is missing.
    """
    missing = [name for name in _TOP if name not in result]
    if result.get("schema") != SCHEMA or result.get("threat") != "white-box" or missing:
        kind = f"schema {result.get('schema')!r}, threat {result.get('threat')!r}"
        what = f"it lacks {', '.join(missing)}" if missing else kind
        raise InputError(f"this is no result file of a white-box evaluation ({what})", "evaluate again")
    return result


def budget_title(budget: str) -> str:
    """`linf:8/255` as `Linf 8/255`."""
    kind, size = budget.split(":")[:2]
    return f"{ {'linf': 'Linf', 'l2': 'L2', 'dissimilarity': 'L2-dissimilarity'}[kind] } {size}"


def headline(result: dict[str, Any]) -> str:
    """One paragraph: what withstood everything, or why that is not said."""
    budgets = result["settings"]["budgets"]
    if result["headline"] is None:
        reasons = "; ".join(result["withheld"])
        return f"The headline figure is withheld. {reasons}."
    shown = ", ".join(f"{_cell(result['headline'][budget])} at {budget_title(budget)}" for budget in budgets)
    return f"Accuracy under the worst of all attacks: {shown}; clean {_cell(result['clean']['defended'])}."


def table_rows(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the table as text: model or group, attack, gradient, n, and a cell for each budget."""
    budgets = result["settings"]["budgets"]
    lines = []
    for model, title in MODELS.items():
        if model not in result["clean"]:
            continue
        clean = result["clean"][model]
        lines.append([title, "none (clean)", "", str(clean["n"]), *[_cell(clean)] * len(budgets)])
        for kind, group in KINDS.items():
            for row in result["rows"]:
                if row["model"] == model and row["kind"] == kind and not row["missing"]:
                    lines.append([*_head(row, title if model != "defended" else group), *_cells(row, budgets)])
    n = result["clean"]["defended"]["n"]
    worst = [_cell(result["worst_case"][budget]) for budget in budgets]
    if result["headline"] is not None:
        lines.append(["defended", "worst case of all of these", "", str(n), *worst])
    else:
        lines.append(["defended", "worst case of all of these", "", str(n), *["withheld"] * len(budgets)])
    return lines


def _head(row: dict[str, Any], group: str) -> list[str]:
    counts = sorted({cell["n"] for cell in row["cells"].values()})
    return [group, row["title"], row["gradient"], "–".join(str(count) for count in counts)]


def _cells(row: dict[str, Any], budgets: Iterable[str]) -> list[str]:
    return [_cell(row["cells"][budget]) for budget in budgets]


def _cell(cell: dict[str, Any]) -> str:
    return f"{percent(cell['value'])} {interval(cell)}"


def white_box_markdown(result: dict[str, Any]) -> str:
    """The headline, the table of accuracies and the table of checks.

    Raises:
        InputError: not a result file of this schema.
    """
    check(result)
    titles = ["model", "attack", "gradient", "n", *[budget_title(b) for b in result["settings"]["budgets"]]]
    table = [titles, ["---"] * 3 + ["---:"] * (len(titles) - 3), *table_rows(result)]
    checks = [["check", "", "figure"], ["---", "---", "---"]]
    checks += [[_check_title(c), c["status"], c["figure"]] for c in result["checks"]]
    parts = [headline(result), _lines(table), "Accuracy in percent, with its 95 % Wilson interval.", missing(result)]
    return "\n\n".join([*filter(None, parts), _lines(checks)])


def missing(result: dict[str, Any]) -> str:
    """The rows that were not run, each with the reason; empty if all were."""
    rows = [f"{row['title']} ({row['missing']})" for row in result["rows"] if row["missing"]]
    return f"Not run: {'; '.join(rows)}." if rows else ""


def _check_title(line: dict[str, Any]) -> str:
    return str(line["title"]) + ("" if line["mandatory"] else " (not mandatory)")


def _lines(rows: list[list[str]]) -> str:
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def white_box_terminal(result: dict[str, Any]) -> list["Table"]:
    """The table of accuracies and that of checks, for a terminal.

    Raises:
        InputError: not a result file of this schema.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    check(result)
    caption = escape(" ".join(filter(None, [headline(result), missing(result)])))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption=caption, caption_justify="left")
    for title in ("attack", "gradient"):
        table.add_column(title, overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    for budget in result["settings"]["budgets"]:
        table.add_column(budget_title(budget).replace(" ", "\n"), justify="right", no_wrap=True)
    last = ""
    for group, attack, gradient, n, *cells in table_rows(result):
        if group != last:
            table.add_section()
            table.add_row(f"[bold]{escape(group)}[/bold]")
            last = group
        table.add_row(escape(attack), escape(gradient), n, *[cell.split(" ")[0] for cell in cells])
    checks = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for title in ("check", "", "figure"):
        checks.add_column(title, overflow="fold")
    colours = {"pass": "green", "fail": "red", "not run": "yellow"}
    for line in result["checks"]:
        status = f"[{colours[line['status']]}]{line['status']}[/]"
        checks.add_row(escape(_check_title(line)), status, escape(line["figure"]))
    return [table, checks]
