"""docs/robustness.md shows what the committed result files say, and they are what the page says they are."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pages import page_module
from quasinat.files import read_json

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
WHITE_BOX = ROOT / "results" / "white-box"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return page_module("robustness_page")


def test_the_page_is_that_of_the_result_files(tables: ModuleType) -> None:
    measured = tables.sections(ROOT)
    assert tables.update(PAGE, measured) == PAGE
    for text in measured.values():
        assert text.strip()
        assert text.strip() in PAGE


def test_an_older_page_would_be_noticed(tables: ModuleType) -> None:
    measured = tables.sections(ROOT)
    older = {**measured, "white-box": measured["white-box"].replace("defended", "shielded", 1)}
    assert tables.update(PAGE, older) != PAGE


def test_the_accuracies_are_those_of_the_outcomes_of_each_image() -> None:
    result = read_json(WHITE_BOX / "white-box.json")
    outcomes = np.load(WHITE_BOX / "outcomes.npz", allow_pickle=False)
    for row in result["rows"]:
        for budget, cell in row["cells"].items():
            right = outcomes[f"{row['key']}/{budget}"]
            assert (len(right), right.mean()) == (cell["n"], pytest.approx(cell["value"]))
    for budget, cell in result["worst_case"].items():
        assert outcomes[f"worst-case/{budget}"].mean() == pytest.approx(cell["value"])


def test_at_least_a_thousand_images_were_attacked_and_no_headline_stands_on_a_failed_check() -> None:
    result = read_json(WHITE_BOX / "white-box.json")
    assert result["data"]["n"] >= 1000
    failed = [check["key"] for check in result["checks"] if check["mandatory"] and check["status"] != "pass"]
    assert (result["headline"] is None) == bool(failed)
