"""docs/results.md shows what the committed result files say, and its sentences count right."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pages import page_module
from quasinat.experiments.table_spec import table_named
from quasinat.files import read_json

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results() -> ModuleType:
    return page_module("results_page")


def test_the_page_is_that_of_the_result_files(results: ModuleType) -> None:
    measured = results.sections(ROOT)
    assert results.update(PAGE, measured) == PAGE
    for text in measured.values():
        assert text.strip()
        assert text.strip() in PAGE


@pytest.mark.parametrize("name", ["table1", "table5"])
def test_a_result_file_has_the_tables_rows_at_both_strengths(name: str) -> None:
    result: Any = read_json(ROOT / "results" / "tables" / f"{name}-small.json")
    table = table_named(name)
    assert [row["key"] for row in result["rows"]] == [row.key for row in table.all_rows]
    assert result["matched"] == dict(table.matched)
    assert (result["data"]["train"], result["data"]["test"]) == (10_000, 1000)
    for row in result["rows"]:
        assert "failed" not in {cell["status"] for cell in row["cells"].values()}
    undefended = result["rows"][0]["cells"]
    for stated, column in table.matched.items():
        assert undefended[column]["value"] == pytest.approx(table.paper["none"][stated], abs=0.005)


def test_a_sentence_counts_columns(results: ModuleType) -> None:
    def cell(value: float) -> dict[str, Any]:
        return {"status": "done", "value": value, "low": value - 0.05, "high": value + 0.05}

    def row(key: str, *values: float, paper: float = 0.5) -> dict[str, Any]:
        cells = dict(zip("abc", map(cell, values), strict=True))
        return {"key": key, "label": key.upper(), "cells": cells, "paper": dict.fromkeys("abc", paper)}

    rows = [row("none", 0.1, 0.1, 0.1), row("stl", 0.6, 0.48, 0.2), row("control", 0.4, 0.45, 0.4)]
    rows += [row("stl-cluster", 0.9, 0.9, 0.9), row("lid", 0.99, 0.99, 0.99), row("tvm", 0.6, 0.2, 0.1)]
    rows[4]["cells"]["a"]["flagged"] = 0.3
    columns = {letter: letter for letter in "abc"}
    assert results.finding({"rows": rows}, "stl", columns, "as made") == (
        "STL, as made, of 3 attacks: above a second undefended network in 1 and below it in 1, ahead of every row that "
        "is no layer in 2, within 3 points of the paper's or better in 2."
    )
