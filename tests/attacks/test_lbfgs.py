import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.attacks import Dissimilarity, Linf, carlini_wagner, deepfool
from quasinat.attacks.lbfgs import lbfgs

from .conftest import Linear, Perceptron, decisions


def lengths(images: Tensor, perturbed: Tensor) -> Tensor:
    return (perturbed - images).flatten(1).norm(dim=1)


@pytest.mark.parametrize("classes", [2, 4])
def test_distances_on_a_linear_model_are_near_the_closed_form(classes: int, images: Tensor) -> None:
    model = Linear(classes)
    result = lbfgs(model, images, decisions(model, images))
    found, truth = lengths(images, result.images), model.distances(images)
    assert result.success.all()
    assert (found >= truth * (1 - 1e-9)).all()
    assert torch.allclose(found, truth, rtol=0.05)


@pytest.mark.parametrize("classes", [2, 4])
def test_targeted_distances_are_near_the_closed_form(classes: int, images: Tensor) -> None:
    """The nearest point where the target's logit is the largest, by Dykstra's alternating projections."""
    model = Linear(classes)
    labels = decisions(model, images)
    targets = (labels + 1) % classes
    truth = torch.stack([nearest(model, image, target) for image, target in zip(images, targets, strict=True)])
    result = lbfgs(model, images, labels, targets=targets)
    found = lengths(images, result.images)
    assert torch.equal(decisions(model, result.images), targets)
    assert result.success.all()
    assert (found >= truth * (1 - 1e-6)).all()
    assert torch.allclose(found, truth, rtol=0.05)


def nearest(model: Linear, image: Tensor, target: Tensor) -> Tensor:
    """The distance to the intersection of the half-spaces {f_t >= f_k}."""
    with torch.no_grad():
        logits = model(image[None])[0]
        others = [k for k in range(len(logits)) if k != int(target)]
        normals, gaps = model.weight[target] - model.weight[others], logits[others] - logits[target]
        r, corrections = torch.zeros_like(normals[0]), torch.zeros_like(normals)
        for _ in range(300):
            for i, (normal, gap) in enumerate(zip(normals, gaps, strict=True)):
                y = r + corrections[i]
                r = y + ((gap - normal @ y) / normal.square().sum()).clamp(min=0) * normal
                corrections[i] = y - r
        return r.norm()


class Distant(nn.Module):
    """A linear model with a last class that no image can reach: each c has one minimiser, and it never succeeds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Linear(5)

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images) / 2 - 30 * F.one_hot(torch.tensor(4), 5)


@pytest.mark.parametrize("c", [0.3, 2.0])
def test_the_minimiser_is_that_of_scipy(c: float, images: Tensor) -> None:
    """For images with black and white pixels, so that many bounds are active."""
    optimize = pytest.importorskip("scipy.optimize")
    model, images = Distant(), ((images - 0.5) * 8 + 0.5).clamp(0, 1)
    targets = torch.full((len(images),), 4)
    result = lbfgs(
        model, images, decisions(model, images), targets=targets, steps=200, search_steps=1, initial_constant=c
    )
    assert not result.success.any()
    for image, ours in zip(images[:4], result.images, strict=False):

        def objective(flat: np.ndarray, image: Tensor = image) -> tuple[float, np.ndarray]:
            x = torch.tensor(flat).view_as(image).requires_grad_(True)
            value = c * (x - image).square().sum() + F.cross_entropy(model(x[None]), targets[:1])
            return value.item(), torch.autograd.grad(value, x)[0].flatten().numpy()

        theirs = optimize.minimize(
            objective,
            image.flatten().numpy(),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * image.numel(),
            options={"gtol": 1e-8, "ftol": 1e-14},
        )
        flat = ours.flatten().numpy()
        assert 1 <= ((flat == 0) | (flat == 1)).sum() < 34
        assert objective(flat)[0] == pytest.approx(theirs.fun, abs=1e-7)
        assert np.abs(flat - theirs.x).max() < 1e-3


def test_it_is_about_as_close_as_others_at_a_fraction_of_the_cost(perceptron: Perceptron, images: Tensor) -> None:
    labels = decisions(perceptron, images)
    ours = lbfgs(perceptron, images, labels)
    theirs = carlini_wagner(perceptron, images, labels, steps=80, search_steps=6, initial_constant=0.1)
    near = lengths(images, ours.images)
    assert near.mean() <= 1.15 * lengths(images, theirs.images).mean()
    assert near.mean() <= 1.15 * lengths(images, deepfool(perceptron, images, labels).images).mean()
    assert (ours.queries < theirs.queries / 3).all()


def test_more_search_comes_no_farther(perceptron: Perceptron, images: Tensor) -> None:
    labels = decisions(perceptron, images)
    few, many = (lengths(images, lbfgs(perceptron, images, labels, search_steps=n).images) for n in (2, 5))
    assert (many <= few).all()
    assert many.mean() < 0.95 * few.mean()


@pytest.mark.parametrize("constant", [1e-3, 1e4])
def test_the_first_constant_hardly_matters(constant: float, images: Tensor) -> None:
    model = Linear(2)
    result = lbfgs(model, images, decisions(model, images), initial_constant=constant, search_steps=14)
    assert torch.allclose(lengths(images, result.images), model.distances(images), rtol=0.02)


def test_the_box_is_kept_and_its_bounds_are_used(perceptron: Perceptron, images: Tensor) -> None:
    sharp = (images > 0.5).double()
    labels = decisions(perceptron, sharp)
    result = lbfgs(perceptron, sharp, labels)
    assert result.success.all()
    assert torch.equal(decisions(perceptron, result.images) != labels, result.success)
    assert ((result.images >= 0) & (result.images <= 1)).all()
    assert (
        lengths(sharp, result.images).mean() <= 1.5 * lengths(sharp, deepfool(perceptron, sharp, labels).images).mean()
    )


def test_a_failure_is_the_last_iterate_and_not_the_clean_image(images: Tensor) -> None:
    model = Distant()
    result = lbfgs(model, images, decisions(model, images), targets=torch.full((len(images),), 4), steps=5)
    assert not result.success.any()
    assert (lengths(images, result.images) > 0.1).all()


def test_an_image_that_is_wrong_already_stays(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    result = lbfgs(perceptron, images, labels, search_steps=2)
    assert torch.equal(result.images[-1], images[-1])
    assert result.success[-1]
    assert result.queries[-1] == 2
    assert (result.queries[:-1] > 4).all()


def test_held_to_a_budget_below_and_above_the_distance(images: Tensor) -> None:
    model = Linear(2)
    labels = decisions(model, images)
    relative = model.distances(images) / images.flatten(1).norm(dim=1)
    below, above = Dissimilarity(0.95 * relative.min().item()), Dissimilarity(1.05 * relative.max().item())
    for budget, reaches in ((below, False), (above, True)):
        result = lbfgs(model, images, labels, budget=budget)
        assert torch.allclose(budget.measure(images, result.images), torch.tensor(budget.size, dtype=torch.float64))
        assert result.success.tolist() == [reaches] * len(images)


def test_kinks_do_not_stop_it(images: Tensor) -> None:
    """Class 1 wins where the pixels' distances to 0.7 add up to 3 at most: filled like water."""

    class Kinked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            misses = (images - 0.7).abs().flatten(1).sum(1)
            return torch.stack([torch.full_like(misses, -3.0), -misses], 1)

    images = images[:3]
    result = lbfgs(Kinked(), images, torch.zeros(3, dtype=torch.int64))
    gaps = 0.7 - images.flatten(1)
    levels = torch.linspace(0, 0.3, 3001, dtype=torch.float64)[:, None, None]
    level = (gaps - torch.minimum(gaps, levels)).sum(2).le(3).double().argmax(0)
    truth = torch.minimum(gaps, levels[level, 0]).norm(dim=1)
    assert result.success.all()
    assert torch.allclose(lengths(images, result.images), truth, rtol=0.05)


def test_queries_are_what_the_model_saw(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    seen = 0

    def count(_: object, inputs: tuple[Tensor], __: object) -> None:
        nonlocal seen
        seen += len(inputs[0])

    perceptron.register_forward_hook(count)
    result = lbfgs(perceptron, images, labels, search_steps=3, budget=Linf(0.1))
    evaluations = (result.queries - 2) // 2  # a forward and a backward pass each; the first look and the last check
    assert seen == int((2 + evaluations).sum())


def test_half_precision_images_are_minimised_in_single_precision(images: Tensor) -> None:
    exact, coarse = Perceptron(), Perceptron(dtype=torch.bfloat16)
    images = images.bfloat16()[:4]
    labels = decisions(coarse, images)
    half = lbfgs(coarse, images, labels, search_steps=5)
    full = lbfgs(exact, images.double(), labels, search_steps=5)
    assert half.success.all()
    near = lengths(images.double(), half.images.double()).mean()
    assert near < 2 * lengths(images.double(), full.images).mean()
