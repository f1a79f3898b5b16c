"""Strength matching: on an accuracy that is known as a function of the share."""

import math

import pytest
import torch

from quasinat.errors import UsageError
from quasinat.experiments.matching import matching


def falling(share: float) -> torch.Tensor:
    """Images whose mean says at which share they were made."""
    return torch.full((1, 1, 2, 2), share)


def accuracy(images: torch.Tensor) -> float:
    """From 90 % falling to 10 %, in steps of a hundredth, as on a hundred images."""
    return round(0.9 - 0.8 * float(images.mean()), 2)


@pytest.mark.parametrize("target", [0.9, 0.5816, 0.43, 0.15])
def test_the_share_leaves_the_target_as_closely_as_the_images_allow(target: float) -> None:
    found = matching(falling, accuracy, target)
    assert abs(found.accuracy - target) <= 0.01
    assert found.share == pytest.approx((0.9 - target) / 0.8, abs=0.02)
    assert found.images.equal(falling(found.share))
    assert accuracy(found.images) == found.accuracy


def test_an_attack_that_is_weaker_than_the_papers_is_taken_whole() -> None:
    found = matching(falling, accuracy, 0.05)
    assert (found.share, found.accuracy) == (1.0, 0.1)


def test_a_network_that_is_worse_than_the_papers_attacked_one_cannot_be_matched() -> None:
    with pytest.raises(UsageError, match=r"90\.0% of the clean images right; no attack brings it to the 93\.0%"):
        matching(falling, accuracy, 0.93)


def test_the_search_ends_as_soon_as_it_is_close_enough() -> None:
    """An accuracy that falls exponentially, as under a real attack, is met by the first curve."""
    shares: list[float] = []

    def exponential(images: torch.Tensor) -> float:
        return 0.9 * math.exp(-6 * float(images.mean()))

    def counted(share: float) -> torch.Tensor:
        shares.append(share)
        return falling(share)

    assert matching(counted, exponential, 0.3, enough=0.005).accuracy == pytest.approx(0.3, abs=1e-3)
    assert len(shares) == 3  # the two ends, and where the curve between them meets the target
    shares.clear()
    matching(counted, accuracy, 0.3003)
    assert len(shares) > 8


@pytest.mark.parametrize("power", [0.1, 1, 10])
def test_a_curve_of_any_form_is_met_in_a_few_tries(power: float) -> None:
    """From 90 % to none, most of it near one end or the other; two tries halve what is left at least."""
    shares: list[float] = []

    def counted(share: float) -> torch.Tensor:
        shares.append(share)
        return falling(share).double()

    def curved(images: torch.Tensor) -> float:
        return 0.9 * (1 - float(images.mean()) ** power)

    assert matching(counted, curved, 0.3, enough=0.005).accuracy == pytest.approx(0.3, abs=0.005)
    assert len(shares) <= 2 + 12


def test_the_closer_of_two_neighbours_is_taken() -> None:
    """Where the accuracy jumps over the target, from 70 % to 40 % at a share of 0.3."""
    steep = [matching(falling, lambda images: 0.7 if float(images.mean()) < 0.3 else 0.4, t) for t in (0.6, 0.45)]
    assert [found.accuracy for found in steep] == [0.7, 0.4]
    for found in steep:
        assert found.share == pytest.approx(0.3, abs=2e-3)
