import pytest
import torch
from torch import Tensor

from quasinat.attacks import L2, Budget, Dissimilarity, Linf
from quasinat.attacks.finite_difference import difference_quotients, finite_difference
from quasinat.attacks.goal import Goal
from quasinat.attacks.model_access import loss_and_gradient
from quasinat.errors import UsageError

from .conftest import Constant, Linear, Perceptron, decisions


def quotients(model: torch.nn.Module, images: Tensor, goal: Goal, probe: float = 1e-4) -> Tensor:
    """Along every coordinate, from the last to the first."""
    chosen = torch.arange(images[0].numel()).flip(0)
    with torch.no_grad():
        return difference_quotients(model, images, goal, chosen, probe, "margin", torch.arange(len(images))).flip(1)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_quotient_of_a_linear_model_is_its_gradient(targeted: bool, images: Tensor) -> None:
    model = Linear(4)
    images[0, 0, 0], images[1, 0, 0] = 0, 1  # at the edge of the box the quotient is one-sided
    goal = Goal(decisions(model, images), model(images).argmin(1) if targeted else None)
    _, _, gradient = loss_and_gradient(model, images, goal, "margin")
    assert torch.allclose(quotients(model, images, goal), gradient.flatten(1), rtol=0, atol=1e-9)


def test_the_error_of_the_quotient_is_of_second_order(perceptron: Perceptron, images: Tensor) -> None:
    perceptron.eval()
    goal = Goal(decisions(perceptron, images))
    _, _, gradient = loss_and_gradient(perceptron, images, goal, "margin")
    coarse, fine = ((quotients(perceptron, images, goal, h) - gradient.flatten(1)).norm() for h in (2e-3, 1e-3))
    assert fine < 1e-4
    assert coarse / fine == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_in_lower_precision_the_probe_still_moves(dtype: torch.dtype, images: Tensor) -> None:
    model = Linear(2, dtype=dtype)
    images = images.to(dtype)
    goal = Goal(decisions(model, images))
    estimate = quotients(model, images, goal)
    assert estimate.dtype == torch.float32
    assert estimate.isfinite().all()
    if dtype == torch.float32:
        _, _, gradient = loss_and_gradient(model, images, goal, "margin")
        assert torch.nn.functional.cosine_similarity(estimate, gradient.flatten(1)).min() > 0.999


def test_with_all_coordinates_it_is_projected_adam(perceptron: Perceptron, images: Tensor) -> None:
    """Against PyTorch's own Adam on true gradients; a coordinate's step count is then the step."""
    perceptron.eval()
    labels = decisions(perceptron, images)
    budget, steps = Linf(0.012), 6
    result = finite_difference(
        perceptron, images, labels, budget=budget, steps=steps, coordinates=36, learning_rate=0.003, probe=1e-5
    )
    standing = ~result.success
    assert standing.any()
    point = images.clone().requires_grad_(True)
    adam = torch.optim.Adam([point], lr=0.003)
    losses, iterates = [], []
    for _ in range(steps):
        _, _, gradient = loss_and_gradient(perceptron, point, Goal(labels), "margin")
        point.grad = -gradient
        adam.step()
        with torch.no_grad():
            point.copy_(budget.project(images, point))
            losses.append(Goal(labels).loss("margin", perceptron(point)))
            iterates.append(point.clone())
    best = torch.stack(losses).argmax(0)
    expected = torch.stack(iterates)[best, torch.arange(len(images))]
    assert torch.allclose(result.images[standing], expected[standing], rtol=0, atol=1e-6)


def test_moments_and_step_counts_belong_to_their_coordinate(images: Tensor) -> None:
    """On a linear model Adam's corrected step is the learning rate exactly, at each coordinate's first visit too."""
    model = Linear(2)
    labels = decisions(model, images)
    weights = model.weight.detach()[1 - labels] - model.weight.detach()[labels]
    result = finite_difference(
        model, images, labels, budget=Linf(0.05), steps=5, coordinates=10, learning_rate=0.002, seed=3
    )
    assert not result.success.any()
    visits = (result.images - images).flatten(1) / (0.002 * weights.sign())
    assert torch.allclose(visits, visits.round(), rtol=0, atol=1e-3)
    assert torch.equal(visits.round().sum(1), torch.full((7,), 50.0, dtype=torch.float64))
    assert torch.equal(visits.round(), visits.round()[:1].expand_as(visits))  # shared by all images


@pytest.mark.parametrize("kind", [Linf, L2])
def test_on_a_linear_model_it_succeeds_exactly_where_signs_do(kind: type, images: Tensor) -> None:
    """Adam's ascent ends in the signs of the gradient, which are optimal in an Linf ball and 4/5 of it in an L2 one."""
    model = Linear(2)
    with torch.no_grad():
        logits = model(images)
        labels = logits.argmax(1)
        sums = (model.weight[0] - model.weight[1]).abs().sum()
        distances = (logits.max(1).values - logits.min(1).values) / sums  # Linf, the optimum
    lengths = distances * (1 if kind is Linf else 6)  # the signs of 36 pixels have an L2 length of 6
    assert kind is Linf or (model.distances(images) > 0.7 * lengths).all()
    for size, expected in ((0.99 * lengths.min(), False), (1.01 * lengths.max(), True)):
        result = finite_difference(model, images, labels, budget=kind(size.item()), steps=60, coordinates=36)
        assert result.success.tolist() == [expected] * 7


@pytest.mark.parametrize("budget", [Linf(0.02), L2(0.1), Dissimilarity(0.04)], ids=str)
def test_queries_are_what_the_model_saw_without_a_gradient(budget: Budget, images: Tensor, labels: Tensor) -> None:
    model, seen = Perceptron(), 0

    def count(_: object, inputs: tuple[Tensor], __: object) -> None:
        nonlocal seen
        assert not torch.is_grad_enabled()
        assert ((inputs[0] >= 0) & (inputs[0] <= 1)).all()
        seen += len(inputs[0])

    model.register_forward_hook(count)
    images[0, 0, :3], images[1, 0, 3:] = 0, 1
    labels[:2] = decisions(model, images[:2])
    seen = 0
    result = finite_difference(model, images, labels, budget=budget, steps=10, coordinates=12)
    assert seen == int(result.queries.sum())
    assert result.queries[-1] == 2  # wrong already: one look and the re-check
    assert torch.equal(result.images[-1], images[-1])
    assert ((result.queries - 2) % 25 == 0).all()
    failed = ~result.success
    assert 0 < failed.sum() < 6
    assert (result.queries[failed] == 2 + 10 * 25).all()


@pytest.mark.parametrize("budget", [Linf(0.3), L2(1.5)], ids=str)
def test_targets_are_reached(budget: Budget, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    targets = (decisions(perceptron, images) + 1) % 5
    result = finite_difference(perceptron, images, labels, budget=budget, targets=targets, steps=60, coordinates=12)
    assert torch.equal(result.success, decisions(perceptron, result.images) == targets)
    assert result.success.all()


def test_a_model_without_a_slope_keeps_its_images(images: Tensor) -> None:
    labels = torch.zeros(7, dtype=torch.int64)
    model = Constant([1.0, 0.0], attached=False)
    result = finite_difference(model, images, labels, budget=Linf(0.1), steps=2, coordinates=5)
    assert not result.success.any()
    assert torch.equal(result.images, images)


def test_a_seed_repeats_and_another_differs(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    first, again, other = (
        finite_difference(perceptron, images, labels, budget=L2(0.1), steps=2, coordinates=5, seed=seed).images
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_progress_counts_the_steps(images: Tensor) -> None:
    seen: list[tuple[int, int]] = []
    finite_difference(
        Constant([1.0, 0.0]),
        images,
        torch.zeros(7, dtype=torch.int64),
        budget=Linf(0.1),
        steps=3,
        coordinates=2,
        on_step=lambda done, steps: seen.append((done, steps)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"coordinates": 0}, "coordinates is 0"),
        ({"probe": 0.0}, "probe is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"loss": "margins"}, "did you mean 'margin'"),
    ],
)
def test_senseless_options_are_refused(options: dict, pattern: str, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(UsageError, match=pattern):
        finite_difference(Perceptron(), images, labels, budget=Linf(0.1), **options)
