"""docs/results.md shows what the committed result files say, and its sentences count right."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pages import page_module
from quasinat.experiments.table_spec import table_named
from quasinat.files import read_json

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results() -> ModuleType:
    return page_module("results_page")


def test_the_pages_are_those_of_the_result_files(results: ModuleType) -> None:
    for path, text in results.pages(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, path
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, text in results.sections(ROOT).items():
        assert text.strip()
        assert text.strip() in (readme if name == "excerpt" else PAGE)


def test_every_drawing_is_there_and_has_what_the_result_files_say(results: ModuleType) -> None:
    for path, drawn in results.drawings(ROOT).items():
        text = path.read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "currentColor" not in text  # colours are written out: converters know no variables
        assert "var(" not in text
        assert re.findall(r"<text[^>]*>([^<]*)<", text) == re.findall(r"<text[^>]*>([^<]*)<", drawn), path
        assert path.name in PAGE


def test_the_excerpt_is_a_part_of_the_table(results: ModuleType) -> None:
    result: Any = read_json(ROOT / "results" / "tables" / "table1-small.json")
    rows = results.excerpt(result).splitlines()
    assert len(rows) == 2 + len(results.EXCERPT)
    stl = next(row for row in result["rows"] if row["key"] == "stl")
    line = next(row for row in rows if row.startswith("| STL |"))
    assert f"| {100 * stl['cells']['clean']['value']:.1f} ±" in line


@pytest.mark.parametrize("name", ["table1", "table2a", "table5", "table6a", "table8a", "table8b"])
def test_a_result_file_has_the_tables_rows_at_both_strengths(name: str) -> None:
    result: Any = read_json(ROOT / "results" / "tables" / f"{name}-small.json")
    table = table_named(name)
    assert [row["key"] for row in result["rows"]] == [row.key for row in table.all_rows]
    assert result["matched"] == dict(table.matched)
    ten = 8580 if table.data.startswith("imagenet10") else 10_000  # ten times the smallest class
    assert (result["data"]["train"], result["data"]["test"]) == (ten, 1000)
    for row in result["rows"]:
        assert "failed" not in {cell["status"] for cell in row["cells"].values()}
    undefended = result["rows"][0]["cells"]
    for stated, column in table.matched.items():
        assert undefended[column]["value"] == pytest.approx(table.paper["none"][stated], abs=0.005)


@pytest.mark.parametrize(
    ("name", "images"),
    {
        "table1-medium": (50_000, 10_000),
        "table5-medium": (50_000, 10_000),
        "table4-small": (10_000, 1000),
        "table3-small": (8580, 1000),
        "table7-small": (9469, 1000),
    }.items(),
)
def test_the_other_result_files_have_their_images_and_no_failures(name: str, images: tuple[int, int]) -> None:
    result: Any = read_json(ROOT / "results" / "tables" / f"{name}.json")
    assert [row["key"] for row in result["rows"]] == [row.key for row in table_named(result["table"]).all_rows]
    assert (result["data"]["train"], result["data"]["test"]) == images
    assert "failed" not in {cell["status"] for row in result["rows"] for cell in row["cells"].values()}
    assert f"{images[0]:,} training and {images[1]:,} test images" in PAGE


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "tables").glob("*.npz")), ids=lambda path: path.stem)
def test_each_images_outcomes_add_up_to_the_result(path: Path) -> None:
    result: Any = read_json(path.with_suffix(".json"))
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    done = {
        f"{row['key']}/{column}": cell["value"]
        for row in result["rows"]
        for column, cell in row["cells"].items()
        if cell["status"] == "done"
    }
    assert {name for name in arrays if name != "labels" and not name.endswith("/flagged")} == set(done)
    for name, value in done.items():
        assert float(arrays[name].mean()) == pytest.approx(value), name


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
        "STL, as made, of 3 attacks: above a second undefended network in 1 and below it in 1, ahead of each of the 3 "
        "other rows that were run (1 of them a defence) in 2, within 3 points of the paper's or better in 2."
    )


def test_a_sentence_says_what_a_layer_was_compared_with(results: ModuleType) -> None:
    bare = ["none", "control", "control-60", "stl-control", "stl-cluster-control"]
    assert results.compared(bare) == "ahead of each of the 5 rows without a defence (no other defence was run)"
    assert results.compared(["none"]) == "ahead of the one row without a defence (no other defence was run)"
    assert results.compared(["tvm", "pgd-training"]) == "ahead of each of the 2 other rows that were run"
    assert results.compared([*bare, "tvm"]).endswith("each of the 6 other rows that were run (1 of them a defence)")
    result: Any = read_json(ROOT / "results" / "tables" / "table5-medium.json")
    result["rows"] = [row for row in result["rows"] if row["key"] in ("none", "control", "stl", "stl-cluster")]
    found = results.findings(result)
    assert found.count("without a defence (no other defence was run) in") == found.count("\n") + 1


def test_the_mean_over_seeds_has_its_range_and_rows_that_a_seed_lacks_are_left_out(results: ModuleType) -> None:
    def result(*values: float | None) -> dict[str, Any]:
        cells = [{"status": "not run"} if value is None else {"status": "done", "value": value} for value in values]
        return {"rows": [{"label": f"row {i}", "cells": {"a@0.5": cell}} for i, cell in enumerate(cells)]}

    text = results.over_seeds([result(0.5, 0.1), result(0.6, None), result(0.55, 0.2)], {"a": "a@0.5"})
    assert text == "| defence | a |\n|---|---|\n| row 0 | 55.0 (50.0 to 60.0) |"


def test_a_corruption_is_the_mean_over_its_severities_and_unfinished_rows_are_named(results: ModuleType) -> None:
    columns = ["clean", *(f"jpeg-{severity}" for severity in range(1, 6))]

    def row(label: str, *values: float) -> dict[str, Any]:
        cells = {
            column: {"status": "done", "value": value, "low": value - 0.01, "high": value + 0.01}
            for column, value in zip(columns, values, strict=True)
        }
        cells["clean"]["calibration_error"] = 0.042
        return {"label": label, "cells": cells}

    rows = [row(label, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2) for label in ("one", "two", "three", "four")]
    rows[1]["cells"]["jpeg-5"] = {"status": "not run"}
    for each in rows[2:]:
        each["cells"] = {column: {"status": "not run"} for column in columns}
    text = results.corruptions({"columns": columns, "rows": rows})
    assert text.splitlines() == [
        "| defence | clean | jpeg | calibration error, clean |",
        "|---|---|---|---|",
        "| one | 70.0 ± 1.0 | 40.0 (20.0) | 4.2 |",
        "",
        "Not run yet: three, four. Not run whole: two.",
    ]
