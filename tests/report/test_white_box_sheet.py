"""The white-box tables say what the result file holds, and say nothing where it withholds."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from quasinat.errors import InputError
from quasinat.evaluation.check import judged, not_run
from quasinat.experiments.white_box_rows import ROWS
from quasinat.report.white_box_sheet import budget_title, headline, table_rows, white_box_markdown, white_box_terminal

BUDGETS = ["linf:8/255", "dissimilarity:0.03"]
SHOWN = {"defended": 80, "base": 90, "adversarial": 70}


def cell(percent: float, n: int) -> dict[str, Any]:
    """An accuracy whose interval goes two points to each side."""
    return {"value": percent / 100, "n": n, "low": (percent - 2) / 100, "high": (percent + 2) / 100}


def built(*absent: str, withheld: tuple[str, ...] = ()) -> dict[str, Any]:
    """Each row has accuracies of its own: 1, 1.5 for the first, 2, 2.5 for the second and so on."""
    rows = []
    for number, (key, row) in enumerate(ROWS.items(), 1):
        gone = key in absent
        cells = {budget: cell(number + i / 2, 10 * number) for i, budget in enumerate(BUDGETS)}
        described = {name: getattr(row, name) for name in ("title", "gradient", "model", "kind")}
        missing = f"reason {number}" if gone else None
        rows.append({"key": key, **described, "missing": missing, "cells": {} if gone else cells})
    worst = {budget: cell(33 + i, 200) for i, budget in enumerate(BUDGETS)}
    checks = [
        judged("a", "A | holds", True, "1 of 1 [red]"),
        judged("b", "B holds", False, "0 of 1"),
        not_run("c", "C holds", "no C was given", mandatory=False),
    ]
    return {
        "schema": 1,
        "threat": "white-box",
        "settings": {"budgets": BUDGETS},
        "provenance": {},
        "data": {"name": "made up", "n": 200},
        "models": {},
        "clean": {model: cell(percent, 200) for model, percent in SHOWN.items() if model not in absent},
        "rows": rows,
        "worst_case": worst,
        "checks": [check.as_json() for check in checks],
        "headline": None if withheld else worst,
        "withheld": list(withheld),
    }


def terminal(result: dict[str, Any], width: int = 200) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in white_box_terminal(result):
        console.print(table)
    shown = console.export_text()
    console.file.close()
    return re.sub(r"\s+", " ", shown)


def test_every_row_has_its_own_numbers() -> None:
    lines = table_rows(built())
    by_title = {(line[1], line[2]): line for line in lines}
    for number, (key, row) in enumerate(ROWS.items(), 1):
        if row.model == "defended":
            line = by_title[row.title, row.gradient]
        else:
            (line,) = (
                line for line in lines if line[1] == row.title and line[0].startswith(key[:4].replace("base", "und"))
            )
        assert line[3:] == [
            str(10 * number),
            f"{number:.1f} [{number - 2:.1f}, {number + 2:.1f}]",
            f"{number + 0.5:.1f} [{number - 1.5:.1f}, {number + 2.5:.1f}]",
        ]
    assert len(lines) == len(ROWS) + 4
    clean = {line[0]: line[3:] for line in lines if line[1] == "none (clean)"}
    assert clean == {
        "undefended network": ["200"] + ["90.0 [88.0, 92.0]"] * 2,
        "adversarially trained network": ["200"] + ["70.0 [68.0, 72.0]"] * 2,
        "defended": ["200"] + ["80.0 [78.0, 82.0]"] * 2,
    }
    assert lines[-1] == ["defended", "worst case of all of these", "", "200", "33.0 [31.0, 35.0]", "34.0 [32.0, 36.0]"]


def test_rows_stand_under_the_model_and_the_kind_that_they_are_of() -> None:
    groups = [line[0] for line in table_rows(built())]
    assert groups == [*sorted(groups[:-1], key=groups.index), "defended"]
    blind, gradient, layer = (sum(row.kind == kind for row in ROWS.values()) for kind in ("blind", "gradient", "layer"))
    assert groups.count("without the defended model's gradient") == blind
    assert groups.count("along a gradient of the defended model") == gradient - 2  # those of the other two models
    assert groups.count("aimed at the layer") == layer


def test_a_headline_is_the_worst_case_with_its_interval() -> None:
    result = built()
    assert headline(result) == (
        "Accuracy under the worst of all attacks: 33.0 [31.0, 35.0] at Linf 8/255, "
        "34.0 [32.0, 36.0] at L2-dissimilarity 0.03; clean 80.0 [78.0, 82.0]."
    )
    for show in (white_box_markdown, terminal):
        assert headline(result) in show(result)
        assert "withheld" not in show(result)


@pytest.mark.parametrize("show", [white_box_markdown, terminal], ids=["markdown", "terminal"])
def test_a_withheld_headline_is_nowhere(show: Callable[[dict[str, Any]], str]) -> None:
    result = built(withheld=("B holds: failed (0 of 1)", "C [bold] holds: not run (none)"))
    text = show(result)
    assert "The headline figure is withheld. B holds: failed (0 of 1); C [bold] holds: not run (none)." in text
    assert not re.search(r"\b3[34]\.0", text)
    assert table_rows(result)[-1][3:] == ["200", "withheld", "withheld"]
    (line,) = re.findall(r"worst case of all of these[ |]+200[ |]+withheld[ |]+withheld", text)
    assert line


@pytest.mark.parametrize("show", [white_box_markdown, terminal], ids=["markdown", "terminal"])
def test_what_was_not_run_is_said_with_the_reason(show: Callable[[dict[str, Any]], str]) -> None:
    result = built("routing", "base", "adversarial")
    keys = list(ROWS)
    parts = [f"{ROWS[key].title} (reason {keys.index(key) + 1})" for key in ("routing", "base", "adversarial")]
    assert f"Not run: {'; '.join(parts)}." in show(result)
    assert not [line for line in table_rows(result) if line[1] == "Routing"]
    assert {line[0] for line in table_rows(result)}.isdisjoint({"undefended network", "adversarially trained network"})
    assert "Not run" not in show(built())


@pytest.mark.parametrize("show", [white_box_markdown, terminal], ids=["markdown", "terminal"])
def test_each_check_has_its_status_and_its_figure(show: Callable[[dict[str, Any]], str]) -> None:
    text = show(built())
    bar = r"A \| holds" if show is white_box_markdown else "A | holds"
    for title, status, figure in (
        (bar, "pass", "1 of 1 [red]"),
        ("B holds", "fail", "0 of 1"),
        ("C holds (not mandatory)", "not run", "no C was given"),
    ):
        assert re.search(rf"{re.escape(title)}[ |]+{status}[ |]+{re.escape(figure)}", text), text


def test_markdown_is_a_table() -> None:
    lines = white_box_markdown(built()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    table, checks = rows[: len(ROWS) + 6], rows[len(ROWS) + 6 :]
    assert table[0] == "| model | attack | gradient | n | Linf 8/255 | L2-dissimilarity 0.03 |"
    assert table[1] == "| --- | --- | --- | ---: | ---: | ---: |"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7}
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in checks} == {4}
    assert len(checks) == 5


def test_the_terminals_numbers_are_those_of_the_table() -> None:
    result = built()
    text = terminal(result)
    for _, attack, gradient, n, *cells in table_rows(result):
        shown = " ".join(filter(None, [attack, gradient, n, *(each.split(" ")[0] for each in cells)]))
        assert shown in text
    narrow = terminal(result, 80)
    assert all(f"{number:.1f} {number + 0.5:.1f}" in narrow for number in range(1, len(ROWS) + 1))


def test_budgets_by_name() -> None:
    assert budget_title("linf:8/255") == "Linf 8/255"
    assert budget_title("l2:0.5") == "L2 0.5"
    assert budget_title("dissimilarity:0.03:gradient") == "L2-dissimilarity 0.03"


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"schema": 2}, r"no result file of a white-box evaluation \(schema 2, threat .white-box.\); evaluate again"),
        ({"threat": "certify"}, r"threat 'certify'"),
        ({"rows": None, "checks": None}, r"it lacks rows, checks"),
    ],
)
@pytest.mark.parametrize("show", [white_box_markdown, white_box_terminal], ids=["markdown", "terminal"])
def test_another_result_is_refused(
    changes: dict[str, Any], pattern: str, show: Callable[[dict[str, Any]], object]
) -> None:
    result = {name: value for name, value in (built() | changes).items() if value is not None or name == "headline"}
    with pytest.raises(InputError, match=pattern):
        show(result)
