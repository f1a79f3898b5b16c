import pytest
import torch
from torch import Tensor

from quasinat.attacks import Budget, Linf, held_to

from .conftest import BUDGETS


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("length", [1e-6, 1e-2, 10.0])
def test_the_budget_is_met_and_the_direction_kept(budget: Budget, length: float, images: Tensor) -> None:
    moves = length * torch.randn(images.shape, dtype=torch.float64)
    held = held_to(images, images + moves, budget)
    assert torch.allclose(budget.measure(images, held), torch.tensor(budget.size, dtype=torch.float64))
    cosine = torch.nn.functional.cosine_similarity((held - images).flatten(1), moves.flatten(1))
    assert torch.allclose(cosine, torch.ones_like(cosine))


def test_what_has_not_moved_stays_and_the_box_comes_last(images: Tensor) -> None:
    assert torch.equal(held_to(images, images, Linf(0.1)), images)
    assert torch.equal(held_to(images, images + 1e-3, Linf(0.9)), torch.ones_like(images))
