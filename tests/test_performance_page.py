"""docs/performance.md shows what the committed result files say."""

from types import ModuleType

import pytest

from pages import ROOT, page_module
from quasinat.files import read_json

PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return page_module("table")


def test_the_page_is_that_of_the_result_files(tables: ModuleType) -> None:
    measured = tables.sections(ROOT / "results" / "performance")
    assert tables.update(PAGE, measured) == PAGE
    for text in measured.values():
        assert len(text) > 50
        assert text.strip() in PAGE


def test_an_older_page_would_be_noticed(tables: ModuleType) -> None:
    measured = tables.sections(ROOT / "results" / "performance")
    older = {**measured, "table": measured["table"].replace("yes", "no", 1)}
    assert tables.update(PAGE, older) != PAGE


def test_the_readme_says_what_was_measured() -> None:
    prose = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    results = read_json(ROOT / "results" / "performance" / "results.json")
    faster = [f"{part['times faster']['coordinate-descent']:.0f}" for part in results["one thread"].values()]
    assert f"0.1 % of the optimum {faster[0]}, {faster[1]} and {faster[2]} times sooner than SPORCO" in prose
    assert f"take {results['whole set']['seconds']:.0f} s on two cores" in prose
    assert f"costs {results['gradients']['implicit']['backward over forward']:.2f} of the forward solve" in prose
