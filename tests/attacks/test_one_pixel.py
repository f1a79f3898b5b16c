import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import L2, Dissimilarity, Linf
from quasinat.attacks.goal import Goal
from quasinat.attacks.one_pixel import _three_others, one_pixel
from quasinat.errors import UsageError

from .conftest import Constant, Perceptron, decisions


def linear(shape: tuple[int, int, int], classes: int, lead: float, generator: torch.Generator) -> nn.Module:
    """Grey is of the first class, by that lead."""
    layer = nn.Linear(math.prod(shape), classes, dtype=torch.float64).requires_grad_(False)
    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
    layer.bias.copy_(-layer.weight.sum(1) / 2)
    layer.bias[0] += lead
    return nn.Sequential(nn.Flatten(), layer)


def exhaustive(model: nn.Module, image: Tensor, goal: Goal) -> tuple[bool, float]:
    """Whether any place with any colour of zeros and ones reaches the goal, and the largest margin among them.

    A linear model's margin towards one rival is linear in the colours, and the largest of convex functions is convex:
    nothing in between does better.
    """
    channels, height, width = image.shape
    candidates = []
    for row, column, *colours in product(range(height), range(width), *([(0.0, 1.0)] * channels)):
        candidate = image.clone()
        candidate[:, row, column] = torch.tensor(colours, dtype=image.dtype)
        candidates.append(candidate)
    logits = model(torch.stack(candidates))
    goal = goal.of(torch.zeros(len(candidates), dtype=torch.int64))
    return bool(goal.reached(logits).any()), goal.loss("margin", logits).max().item()


@pytest.mark.parametrize(("shape", "lead"), [((1, 6, 6), 3.0), ((3, 4, 5), 3.0)])
@pytest.mark.parametrize("classes", [2, 4])
def test_on_a_linear_model_it_finds_what_exhaustive_search_finds(
    shape: tuple[int, int, int], lead: float, classes: int, generator: torch.Generator
) -> None:
    model = linear(shape, classes, lead, generator)
    images = 0.1 + 0.8 * torch.rand(10, *shape, generator=generator, dtype=torch.float64)
    labels = decisions(model, images)
    result = one_pixel(model, images, labels, generations=30)
    found, best = zip(*(exhaustive(model, images[i], Goal(labels[i : i + 1])) for i in range(10)), strict=True)
    assert 0 < sum(found) < 10  # some images can be broken, and some cannot
    assert result.success.tolist() == list(found)
    failed = ~result.success
    reached = Goal(labels).loss("margin", model(result.images))
    assert torch.allclose(reached[failed], torch.tensor(best, dtype=torch.float64)[failed], rtol=0, atol=1e-6)
    assert (result.stats["pixels"] <= 1).all()
    assert torch.equal(result.stats["pixels"], (result.images != images).any(1).sum((1, 2)))


def test_more_pixels_break_more_images_and_no_more_change_than_asked(generator: torch.Generator) -> None:
    model = linear((3, 5, 5), 3, 8.0, generator)
    images = 0.1 + 0.8 * torch.rand(10, 3, 5, 5, generator=generator, dtype=torch.float64)
    labels = decisions(model, images)
    broken = []
    for pixels in (1, 3):
        result = one_pixel(model, images, labels, pixels=pixels, population=80, generations=20)
        assert ((result.images != images).any(1).sum((1, 2)) <= pixels).all()
        assert torch.equal(result.success, decisions(model, result.images) != labels)
        broken.append(int(result.success.sum()))
    assert broken[0] < broken[1]


def test_targets_are_reached_where_exhaustive_search_reaches_them(generator: torch.Generator) -> None:
    model = linear((2, 5, 5), 4, 3.0, generator)
    images = 0.1 + 0.8 * torch.rand(10, 2, 5, 5, generator=generator, dtype=torch.float64)
    labels = decisions(model, images)
    targets = model(images).topk(2).indices[:, 1]
    result = one_pixel(model, images, labels, targets=targets, generations=30)
    # The targeted margin is concave, so corners need not be best: what they reach must be reached.
    found = torch.tensor(
        [exhaustive(model, images[i], Goal(labels[i : i + 1], targets[i : i + 1]))[0] for i in range(10)]
    )
    assert 0 < found.sum() < 10
    assert result.success[found].all()
    assert torch.equal(result.success, decisions(model, result.images) == targets)


@pytest.mark.parametrize("budget", [Linf(0.2), L2(0.25), Dissimilarity(0.05)], ids=str)
def test_a_budget_holds_the_changed_pixels(budget: object, perceptron: Perceptron, images: Tensor) -> None:
    labels = decisions(perceptron, images)
    result = one_pixel(perceptron, images, labels, pixels=2, budget=budget, population=20, generations=5)
    assert (budget.measure(images, result.images) <= budget.size * (1 + 1e-9)).all()
    assert ((result.images != images).any(1).sum((1, 2)) <= 2).all()
    assert torch.equal(result.success, decisions(perceptron, result.images) != labels)


def test_queries_are_what_the_model_saw_without_a_gradient(images: Tensor, labels: Tensor) -> None:
    model, seen = Perceptron(), 0

    def count(_: object, inputs: tuple[Tensor], __: object) -> None:
        nonlocal seen
        assert not torch.is_grad_enabled()
        assert len(inputs[0]) <= 1024
        assert ((inputs[0] >= 0) & (inputs[0] <= 1)).all()
        seen += len(inputs[0])

    model.register_forward_hook(count)
    result = one_pixel(model, images, labels, budget=Linf(0.1), population=200, generations=4)
    assert seen == int(result.queries.sum())
    assert result.queries[-1] == 2  # wrong already: one look and the re-check
    assert torch.equal(result.images[-1], images[-1])
    assert ((result.queries[:-1] - 2) % 200 == 0).all()
    failed = ~result.success
    assert 0 < failed.sum() < 6
    assert (result.queries[failed] == 2 + 5 * 200).all()


def test_an_image_alone_evolves_as_in_its_batch(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    options = {"budget": Linf(0.1), "population": 40, "generations": 12}
    together = one_pixel(perceptron, images, labels, **options)
    assert not together.success.all()
    for i in range(7):
        alone = one_pixel(perceptron, images[i : i + 1], labels[i : i + 1], **options)
        assert torch.equal(alone.images[0], together.images[i])
        assert alone.queries[0] == together.queries[i]


def test_three_others_are_different_and_uniform(generator: torch.Generator) -> None:
    draws = torch.stack([_three_others(5, generator) for _ in range(600)])
    for member in range(5):
        seen = {tuple(row) for row in draws[:, member].tolist()}
        assert all(len({member, *triple}) == 4 for triple in seen)
        assert len(seen) == 4 * 3 * 2  # every ordered triple of the other four
    counts = torch.stack([(draws[:, 2] == other).sum(0) for other in (0, 1, 3, 4)])
    assert (counts - 150).abs().max() < 5 * math.sqrt(600 * 0.25 * 0.75)  # five standard deviations


def test_a_seed_repeats_and_another_differs(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    first, again, other = (
        one_pixel(perceptron, images, labels, population=10, generations=2, seed=seed).images for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_progress_counts_the_generations(images: Tensor) -> None:
    seen: list[tuple[int, int]] = []
    one_pixel(
        Constant([1.0, 0.0]),
        images,
        torch.zeros(7, dtype=torch.int64),
        population=4,
        generations=2,
        on_step=lambda done, steps: seen.append((done, steps)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"pixels": 0}, "pixels is 0"),
        ({"population": 3}, "population is 3"),
        ({"generations": 0}, "generations is 0"),
        ({"loss": "margins"}, "did you mean 'margin'"),
    ],
)
def test_senseless_options_are_refused(options: dict, pattern: str, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(UsageError, match=pattern):
        one_pixel(Perceptron(), images, labels, **options)
