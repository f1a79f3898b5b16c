"""docs/space.md shows what the committed result files say, and the defaults are what they recommend."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from pages import page_module
from quasinat.files import read_json
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Dictionary, project_filters

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "space.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return page_module("space_page")


def test_the_page_is_that_of_the_result_files(tables: ModuleType) -> None:
    measured = tables.sections(ROOT)
    assert tables.update(PAGE, measured) == PAGE
    for text in measured.values():
        assert len(text) > 50
        assert text.strip() in PAGE


def test_an_older_page_would_be_noticed(tables: ModuleType) -> None:
    measured = tables.sections(ROOT)
    older = {**measured, "cifar10": measured["cifar10"].replace("dB", "db", 1)}
    assert tables.update(PAGE, older) != PAGE


def test_the_cards_are_of_layers_learned_on_all_training_images() -> None:
    for sparsity in (0.1, 0.15, 0.2, 0.3):
        for name, count in (("universal", 1), ("stratified", 4)):
            card = read_json(ROOT / "results" / "cifar10" / f"{name}-{sparsity}.json")
            assert card["settings"]["sparsity"] == sparsity
            assert card["settings"]["shape"] == [count, 64, 3, 8, 8]
            assert card["provenance"]["images"] == 50_000
            assert sum(past["images"] for past in card["settings"]["dictionaries"]) >= 50_000 - 256 * count
            assert (ROOT / "results" / "cifar10" / f"{name}-{sparsity}.png").stat().st_size > 10_000


def test_what_defends_better_is_the_default() -> None:
    best = read_json(ROOT / "results" / "choices.json")["best"]
    layer = SparseTransformationLayer(
        None, [Dictionary(project_filters(torch.ones(2, 1, 3, 3), "joint"), "joint", 0.1)]
    )
    assert (layer.split, layer.normalise) == (best["split"], best["normalise"])
