"""The paired difference: by hand, against the unpaired one, and how often its interval holds the truth."""

import pytest
import torch

from quasinat.errors import UsageError
from quasinat.evaluation import paired_difference


def outcomes(both: int, better: int, worse: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of two rows that agree and differ on so many images."""
    one = torch.tensor([True] * (both + better) + [False] * (worse + neither))
    other = torch.tensor([True] * both + [False] * better + [True] * worse + [False] * neither)
    return one, other


def test_by_hand() -> None:
    """Agresti & Min 2005: b, c and n become b + 1/2, c + 1/2 and n + 2."""
    found = paired_difference(*outcomes(40, 20, 10, 30))
    assert (found.value, found.n) == (pytest.approx(0.1), 100)
    middle, spread = 10 / 102, ((20.5 + 10.5) - 10**2 / 102) ** 0.5 / 102
    assert (found.low + found.high) / 2 == pytest.approx(middle)
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * spread, rel=1e-6)


def test_what_both_have_right_or_wrong_does_not_widen_it_and_the_order_turns_it_round() -> None:
    one, other = outcomes(500, 12, 3, 485)
    found, turned = paired_difference(one, other), paired_difference(other, one)
    assert found.low > 0  # while the two accuracies' own intervals overlap by far
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))
    same = paired_difference(one, one)
    assert same.value == 0
    assert same.low < 0 < same.high


@pytest.mark.parametrize(("better", "worse", "n"), [(0.2, 0.1, 40), (0.05, 0.05, 60), (0.5, 0.3, 30)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(better: float, worse: float, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    held, tries = 0, 2000
    for _ in range(tries):
        drawn = torch.rand(n, generator=generator)
        found = paired_difference(drawn < better, (drawn >= better) & (drawn < better + worse))
        held += found.low <= better - worse <= found.high
    assert 0.935 < held / tries < 0.985


def test_of_no_images_nothing_can_be_said() -> None:
    nothing = torch.ones(0, dtype=torch.bool)
    with pytest.raises(UsageError, match="outcomes of 0 and 0 images; give those of the same images"):
        paired_difference(nothing, nothing)
