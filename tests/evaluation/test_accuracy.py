"""Accuracy and its interval against published values and a search over the score test."""

import math

import pytest
import torch

from quasinat.evaluation import Accuracy, accuracy, accuracy_of, outcomes, wilson_interval
from quasinat.evaluation.accuracy import Z_95


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_against_known_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=1e-4)  # Newcombe 1998 has the last


@pytest.mark.parametrize(("correct", "n"), [(1, 7), (50, 100), (999, 1000), (3, 4)])
def test_the_ends_are_where_the_score_test_turns(correct: int, n: int) -> None:
    """|p - p0| = z sqrt(p0 (1 - p0) / n) at both ends, and the share lies between."""
    share = correct / n
    low, high = wilson_interval(correct, n)
    assert low < share < high
    for end in (low, high):
        assert abs(share - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / n), rel=1e-9)


def test_nothing_seen_is_nothing_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    unknown = accuracy_of(torch.zeros(0, dtype=torch.bool))
    assert math.isnan(unknown.value)
    assert (unknown.n, unknown.low, unknown.high) == (0, 0.0, 1.0)


def test_accuracy_counts_right_answers() -> None:
    images = torch.zeros(300, 1, 2, 2)
    images[:, 0, 0, 0] = torch.arange(300) % 3 / 2

    def model(batch: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((2 * batch[:, 0, 0, 0]).long(), 3).float()

    labels = torch.arange(300) % 3
    labels[::10] = (labels[::10] + 1) % 3
    right = outcomes(model, images, labels)
    assert right.equal(torch.arange(300) % 10 != 0)
    measured = accuracy(model, images, labels)
    assert measured == accuracy_of(right) == Accuracy(0.9, 300, *wilson_interval(270, 300))
    assert str(measured) == "90.0 % [86.1, 92.9] (n = 300)"
    assert outcomes(model, images[:0], labels[:0]).shape == (0,)
