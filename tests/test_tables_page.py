"""docs/tables.md shows what the committed result files say."""

from pathlib import Path
from types import ModuleType

import pytest

from pages import page_module
from quasinat.experiments.table_spec import table_named, table_names
from quasinat.files import read_json

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"table3", "table7"}  # tables that want a file of weights, which this page's commands do without
LATER = {  # rows that the tables have gained since these runs
    "retrained": {"stl-control", "stl-cluster-control"},
    "white-box": {"stl-control", "stl-cluster-control"},
    "vanilla": {"control"},
}
PAGE = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return page_module("tables_page")


def test_the_page_is_that_of_the_result_files(tables: ModuleType) -> None:
    measured = tables.sections(ROOT)
    assert tables.update(PAGE, measured) == PAGE
    for text in measured.values():
        assert text.strip()
        assert text.strip() in PAGE


def test_an_older_page_would_be_noticed(tables: ModuleType) -> None:
    measured = tables.sections(ROOT)
    older = {**measured, "table1": measured["table1"].replace("MagNet", "MugNet", 1)}
    assert tables.update(PAGE, older) != PAGE


@pytest.mark.parametrize("name", sorted({name for name in table_names() if name.startswith("table")} - ELSEWHERE))
def test_a_result_file_has_every_row_and_what_the_paper_prints(name: str, tables: ModuleType) -> None:
    result, table = read_json(ROOT / "results" / "tables" / f"{name}-{tables.PRESET}.json"), table_named(name)
    gained = LATER[table.threat]
    assert [row["key"] for row in result["rows"]] == [row.key for row in table.all_rows if row.key not in gained]
    assert tuple(result["columns"]) == table.columns
    for row in result["rows"]:
        assert row["paper"] == dict(table.paper.get(row["key"], {}))
        assert "failed" not in {cell["status"] for cell in row["cells"].values()}


def test_the_order_is_by_the_mean_over_the_attacks_and_without_detectors(tables: ModuleType) -> None:
    def row(key: str, clean: float, *attacked: float, flagged: bool = False) -> dict:
        more = {"flagged": 0.5} if flagged else {}
        values = dict(zip(("clean", "a", "b"), (clean, *attacked), strict=True))
        cells = {column: {"status": "done", "value": value, **more} for column, value in values.items()}
        return {"key": key, "label": key.upper(), "cells": cells}

    rows = [row("none", 0.9, 0.0, 0.2), row("tvm", 0.5, 0.4, 0.6), row("stl", 0.9, 0.2, 0.4)]
    rows += [row("control", 0.9, 0.3, 0.4), row("trades", 0.4, 0.4, 0.4)]
    rows += [row("lid", 0.9, 0.9, 0.9, flagged=True), row("jpeg", 0.9, 0.1, 0.1)]
    del rows[-1]["cells"]["b"]["value"]
    rows[-1]["cells"]["b"]["status"] = "not run"
    result = {"title": "Table 0", "data": {"name": "made"}, "columns": ["clean", "a", "b"], "rows": rows}
    said = tables.standing(result)
    assert said == (
        "**Table 0** (made, 5 rows): first are TVM 50.0 %, TRADES 40.0 %, CONTROL 35.0 %; STL 30.0 % (place 4); "
        "NONE 10.0 % and CONTROL 35.0 %, which 1 of 2 input transformations exceed."
    )
