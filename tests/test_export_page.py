"""docs/export.md shows what its result file says."""

import json
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

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


def test_the_runtimes_agree_in_the_result_file_on_several_images() -> None:
    sizes = json.loads((FOLDER / "latency.json").read_text(encoding="utf-8"))["sizes"]
    assert list(sizes) == ["32", "64", "224"]
    for part in sizes.values():
        found = part["agreement"]
        assert found["images"] >= 4
        assert len(set(found["at a time"])) == 2
        assert {"5", "10", "20", "40"} <= set(found["steps"])
        assert max(found["steps"].values()) <= 1e-4
        assert found["logits"]["apart"] <= 1e-4


def test_a_rate_is_that_of_warm_calls() -> None:
    """The first call of four takes ten times as long, as one that allocates does, and is not counted."""
    times, images, calls = page_module("latency_times"), torch.zeros(5, 1, 2, 2), []

    def run(given: Tensor) -> Tensor:
        calls.append(len(given))
        time.sleep(0.5 if len(calls) == 1 else 0.05)
        return given

    found = times.rate(run, images, 0.0)
    assert calls == [5] * 4
    assert found["calls"] == 3
    assert 50 < found["images a second"] <= 100


def test_a_long_first_call_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    times = page_module("latency_times")
    monkeypatch.setattr(times, "LONG", 0.02)
    found = times.rate(lambda given: time.sleep(0.03) or given, torch.zeros(3, 1, 2, 2), 1.0)
    assert found["calls"] == 1
    assert found["images a second"] <= 100
