"""The rate that MobileNetV2 is tuned with is the one that did best on training images held out of the tuning."""

from pathlib import Path

import torch

from pages import page_module
from quasinat.data import Dataset
from quasinat.experiments.table_classifiers import TUNING_RATE
from quasinat.files import read_json

ROOT = Path(__file__).resolve().parents[1]


def test_the_rate_is_the_best_that_was_tried() -> None:
    result = read_json(ROOT / "results" / "tuning_rate.json")
    accuracies = {row["learning_rate"]: row["accuracy"]["value"] for row in result["rates"]}
    assert len(accuracies) >= 3
    assert max(accuracies, key=accuracies.__getitem__) == result["best"] == TUNING_RATE


def test_what_is_judged_on_was_not_tuned_on_and_no_test_image_is_among_it() -> None:
    module = page_module("tuning_rate")
    count = 2 * (module.FITTED + module.JUDGED)
    images = torch.arange(count, dtype=torch.float32).view(count, 1, 1, 1).expand(-1, 3, 2, 2) / count
    labels = torch.arange(count) % 2
    data = Dataset("two", images, labels, 1 - images[:2], labels[:2], ("a", "b"))
    halves = module.held_out(data, 0)
    values = [half[0][:, 0, 0, 0] for half in halves]
    assert [len(value) for value in values] == [2 * module.FITTED, 2 * module.JUDGED]
    assert len(torch.cat(values).unique()) == count
    assert all(half[1].bincount().tolist() == [len(half[1]) // 2] * 2 for half in halves)
