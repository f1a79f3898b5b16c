import pytest
import torch
from torch import Tensor

from quasinat.attacks import Budget, Linf, fgsm, random_noise

from .conftest import BUDGETS, Linear, Perceptron


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_grey_images_meet_their_budget_exactly(budget: Budget, images: Tensor, labels: Tensor) -> None:
    for attack in (fgsm, random_noise):
        moved = attack(Perceptron(), images, labels, budget=budget).images
        assert ((moved > 0) & (moved < 1)).all()  # nothing was clipped
        assert torch.allclose(budget.measure(images, moved), torch.tensor(budget.size, dtype=torch.float64), rtol=1e-12)


def test_the_step_is_the_sign_of_the_gradient(images: Tensor) -> None:
    model = Linear(2)
    labels = torch.zeros(len(images), dtype=torch.int64)
    moved = fgsm(model, images, labels, budget=Linf(0.05)).images
    expected = 0.05 * (model.weight[1] - model.weight[0]).sign().reshape(images.shape[1:])
    assert torch.allclose(moved - images, expected.expand_as(images))


def test_clipping_comes_last(labels: Tensor) -> None:
    white = torch.ones(7, 1, 6, 6, dtype=torch.float64)
    moved = fgsm(Perceptron(), white, labels, budget=Linf(0.1)).images
    assert set(moved.unique().tolist()) <= {0.9, 1.0}
