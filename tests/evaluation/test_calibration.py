"""The calibration error on cases that are worked by hand, and on confidences that are right by construction."""

import pytest
import torch

from quasinat.errors import InputError, UsageError
from quasinat.evaluation import calibration


def test_a_case_by_hand() -> None:
    """Two bins: three images of mean confidence 0.9 of which two are right, one of 0.4 that is right."""
    found = calibration(torch.tensor([0.8, 0.9, 1.0, 0.4]), torch.tensor([True, True, False, True]), bins=2)
    assert found.error == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * 0.6)
    assert found.count.tolist() == [1, 3]
    assert found.accuracy.tolist() == pytest.approx([1, 2 / 3])
    assert found.confidence.tolist() == pytest.approx([0.4, 0.9])


def test_an_edge_belongs_to_the_bin_below_and_zero_to_the_first() -> None:
    found = calibration(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), torch.ones(3, dtype=torch.bool), bins=2)
    assert found.count.tolist() == [2, 1]


def test_confidences_that_are_probabilities_have_hardly_any_error(generator: torch.Generator) -> None:
    confidence = 0.1 + 0.9 * torch.rand(200_000, generator=generator)
    right = torch.rand(200_000, generator=generator) < confidence
    assert calibration(confidence, right).error < 0.005
    assert calibration(confidence.clamp(min=0.95), right).error > 0.3


def test_the_mean_gap_of_one_bin_and_of_none() -> None:
    confidence, right = torch.tensor([0.9, 0.7]), torch.tensor([True, False])
    assert calibration(confidence, right, bins=1).error == pytest.approx(0.3)
    assert calibration(confidence[:0], right[:0]).error == 0


def test_what_is_no_probability_is_refused() -> None:
    right = torch.ones(1, dtype=torch.bool)
    for value in (1.5, -0.1, float("nan")):
        with pytest.raises(InputError, match=r"outside \[0, 1\]"):
            calibration(torch.tensor([value]), right)
    with pytest.raises(UsageError, match="0 bins"):
        calibration(torch.tensor([0.5]), right, bins=0)
