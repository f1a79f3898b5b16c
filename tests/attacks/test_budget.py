import math

import pytest
import torch
from torch import Tensor

from quasinat.attacks import L2, Budget, Dissimilarity, Linf
from quasinat.errors import UsageError

from .conftest import BUDGETS, SHAPE

INFINITE = [Linf(math.inf), L2(math.inf), Dissimilarity(math.inf)]


@pytest.mark.parametrize("kind", [Linf, L2, Dissimilarity])
@pytest.mark.parametrize("size", [-0.1, math.nan])
def test_a_negative_budget_or_none_at_all_is_refused(kind: type, size: float) -> None:
    with pytest.raises(UsageError, match="at least 0"):
        kind(size)


def test_measures_follow_their_definitions(images: Tensor) -> None:
    moved = images + 0.01 * torch.randn(images.shape, dtype=torch.float64)
    difference = (moved - images).flatten(1)
    assert torch.allclose(Linf(1.0).measure(images, moved), difference.abs().max(1).values)
    assert torch.allclose(L2(1.0).measure(images, moved), difference.square().sum(1).sqrt())
    relative = difference.square().sum(1).sqrt() / images.flatten(1).square().sum(1).sqrt()
    assert torch.allclose(Dissimilarity(1.0).measure(images, moved), relative)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_projection_ends_in_the_ball_and_the_box_and_leaves_the_inside_alone(budget: Budget, images: Tensor) -> None:
    far = images + torch.randn(images.shape, dtype=torch.float64)
    projected = budget.project(images, far)
    assert (budget.measure(images, projected) <= budget.size * (1 + 1e-12)).all()
    assert ((projected >= 0) & (projected <= 1)).all()
    near = images + budget.scaled(images, far - images, 0.5)
    assert torch.allclose(budget.project(images, near), near, rtol=0, atol=1e-15)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("strength", [1e-300, 1.0, 1e300])
def test_a_scaled_direction_meets_the_budget_whatever_its_length(
    budget: Budget, strength: float, images: Tensor
) -> None:
    direction = strength * torch.randn(images.shape, dtype=torch.float64)
    step = budget.scaled(images, budget.step_direction(direction), 0.5)
    assert torch.allclose(budget.measure(images, images + step), torch.tensor(budget.size / 2, dtype=torch.float64))
    assert (budget.scaled(images, torch.zeros_like(images)) == 0).all()


@pytest.mark.parametrize("budget", [Linf(0.0), L2(0.0), Dissimilarity(0.0)], ids=str)
def test_a_budget_of_zero_is_the_image_itself(budget: Budget, images: Tensor) -> None:
    assert torch.equal(budget.project(images, torch.rand_like(images)), images)
    assert (budget.scaled(images, torch.ones_like(images)) == 0).all()


@pytest.mark.parametrize("budget", INFINITE, ids=str)
def test_an_infinite_budget_is_only_the_box(budget: Budget, images: Tensor) -> None:
    far = images + torch.randn(images.shape, dtype=torch.float64)
    assert torch.allclose(budget.project(images, far), far.clamp(0, 1), rtol=0, atol=1e-15)
    whitened = images + budget.scaled(images, torch.ones_like(images))
    assert (whitened >= 1).all()
    assert whitened.isfinite().all()


def test_a_black_image_has_no_dissimilarity_ball() -> None:
    black = torch.zeros(2, *SHAPE)
    budget = Dissimilarity(0.1)
    assert torch.equal(budget.project(black, torch.rand_like(black)), black)
    assert (budget.scaled(black, torch.ones_like(black)) == 0).all()
    assert torch.equal(budget.measure(black, black), torch.zeros(2))
    assert (budget.measure(black, black + 0.1) == math.inf).all()
    assert (Dissimilarity(math.inf).scaled(black, torch.ones_like(black)) == 1).all()


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_noise_lies_in_the_unit_ball(budget: Budget, generator: torch.Generator) -> None:
    noise = torch.stack([budget.unit_noise(torch.Size(SHAPE), generator) for _ in range(50)])
    assert (budget.norms(noise) <= 1).all()
    assert (budget.norms(noise) > 0.5).all()


def test_steps_are_signs_or_unit_gradients(images: Tensor) -> None:
    gradient = torch.randn(images.shape, dtype=torch.float64)
    for budget in (Linf(0.1), Dissimilarity(0.1)):
        assert torch.equal(budget.step_direction(gradient), gradient.sign())
    for steep in (L2(0.1), Dissimilarity(0.1, "gradient")):
        direction = steep.step_direction(gradient)
        assert torch.allclose(direction, gradient / L2(1.0).norms(gradient)[:, None, None, None])


def test_an_unknown_step_is_refused_outside_type_checks() -> None:
    budget = Dissimilarity(0.1)
    object.__setattr__(budget, "step", "gradiant")
    with pytest.raises(UsageError, match="did you mean 'gradient'"):
        budget.__post_init__()
