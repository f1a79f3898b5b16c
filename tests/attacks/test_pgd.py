import pytest
import torch
from torch import Tensor

from quasinat.attacks import L2, Budget, Dissimilarity, Linf, pgd

from .conftest import BUDGETS, Linear, Perceptron


def least_radius(model: Linear, images: Tensor, budget: Budget) -> Tensor:
    """The size of budget at which a two-class linear model errs: gap / ||w||_dual, over ||x0|| for a dissimilarity."""
    weight = (model.weight[0] - model.weight[1]).detach()
    gaps = model(images).detach().diff(dim=1).abs()[:, 0]
    if isinstance(budget, Linf):
        return gaps / weight.abs().sum()
    return gaps / weight.norm() / (1 if isinstance(budget, L2) else torch.linalg.vector_norm(images.flatten(1), dim=1))


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("reaches", [False, True])
def test_it_reaches_the_boundary_just_when_the_radius_does(budget: Budget, reaches: bool, images: Tensor) -> None:
    model = Linear(2)
    labels = model(images).argmax(1)
    signs_in_l2 = budget == Dissimilarity(0.08)  # on a flat model 4/5 as effective as the gradient itself
    factor = (1.3 if signs_in_l2 else 1.02) if reaches else 0.99
    for i, radius in enumerate((factor * least_radius(model, images, budget))[:3].tolist()):
        result = pgd(model, images[i : i + 1], labels[i : i + 1], budget=budget.resized(radius))
        assert result.success.item() is reaches


def test_more_restarts_never_help_the_model(perceptron: Perceptron, images: Tensor) -> None:
    labels = perceptron.eval()(images).argmax(1)
    losses, successes = [], []
    for restarts in (1, 2, 4):
        result = pgd(perceptron, images, labels, budget=L2(0.15), steps=3, restarts=restarts)
        with torch.no_grad():
            losses.append(torch.nn.functional.cross_entropy(perceptron(result.images), labels, reduction="none"))
        successes.append(result.success)
    for before, after in ((0, 1), (1, 2)):
        assert (successes[after] | ~successes[before]).all()
        same = successes[after] == successes[before]
        assert (losses[after] >= losses[before])[same].all()
