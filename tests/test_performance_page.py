"""docs/performance.md shows what the committed result files say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_table", ROOT / "benchmarks" / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
