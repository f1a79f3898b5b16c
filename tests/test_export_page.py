"""docs/export.md shows what its result file says."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results" / "performance"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "latency.json").is_file(), reason="benchmarks/latency.py has not been run for results/performance"
)


@pytest.fixture(scope="module")
def page_maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("latency_page", ROOT / "benchmarks" / "latency_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
