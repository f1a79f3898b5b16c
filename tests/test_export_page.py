"""docs/export.md shows what its result file says."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from pages import ROOT, page_module

FOLDER = ROOT / "results" / "performance"


@pytest.fixture(scope="module")
def page_maker() -> ModuleType:
    return page_module("latency_page")


def test_the_page_is_that_of_the_result_file(page_maker: ModuleType) -> None:
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    measured = page_maker.sections(FOLDER)
    assert page_maker.update(page, measured) == page
    for text in measured.values():
        assert len(text) > 50
        assert text.strip() in page


def test_the_figure_can_be_drawn_of_it(page_maker: ModuleType, tmp_path: Path) -> None:
    found = json.loads((FOLDER / "latency.json").read_text(encoding="utf-8"))
    page_maker.draw(found, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes()[1:4] == b"PNG"


def test_the_runtimes_agree_in_the_result_file() -> None:
    sizes = json.loads((FOLDER / "latency.json").read_text(encoding="utf-8"))["sizes"]
    assert list(sizes) == ["32", "64", "224"]
    for part in sizes.values():
        assert all(part["onnxruntime"][steps]["apart"] <= 1e-4 for steps in ("5", "10", "20", "40", "80", "200"))
