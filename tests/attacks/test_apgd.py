import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.attacks import L2, Budget, Dissimilarity, Linf, pgd
from quasinat.attacks.apgd import apgd, apgd_targeted
from quasinat.attacks.auto_ascent import checkpoints

from .conftest import SHAPE, Linear, Perceptron, decisions


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small classifier of five noisy patterns, and 40 images of its training set; single precision."""
    generator = torch.Generator().manual_seed(2)
    patterns = torch.rand(5, *SHAPE, generator=generator)
    labels = torch.randint(5, (200,), generator=generator)
    images = (0.5 * patterns[labels] + 0.5 * torch.rand(200, *SHAPE, generator=generator)).clamp(0, 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 32), nn.ReLU(), nn.Linear(32, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    for _ in range(150):
        loss = F.cross_entropy(model(images), labels)
        for parameter, gradient in zip(
            model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
        ):
            parameter.data -= 0.5 * gradient
    assert (decisions(model, images) == labels).all()
    return model, images[:40], labels[:40]


def seen_by(model: nn.Module, attack: Callable[[], object]) -> list[Tensor]:
    """Every batch that the model is shown."""
    batches: list[Tensor] = []
    handle = model.register_forward_hook(lambda _, inputs, __: batches.append(inputs[0].detach().clone()))
    attack()
    handle.remove()
    return batches


def test_the_checkpoints_are_the_published_ones() -> None:
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    for steps in (1, 5, 10, 50, 300, 1000):
        p = [Fraction(0), Fraction(22, 100)]
        while p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)) <= 1:
            p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
        assert checkpoints(steps) == sorted({math.ceil(part * steps) for part in p})


def published(
    model: nn.Module, clean: Tensor, label: Tensor, start: Tensor, budget: Budget, steps: int
) -> tuple[list[Tensor], list[float]]:
    """Algorithm 1 as it is printed, for one image, from the lists of all that was: its points, and its step sizes."""

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_(True)
        loss = F.cross_entropy(model(leaf), label)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    def ahead(x: Tensor, eta: float) -> Tensor:
        gradient = f(x)[1]
        unit = gradient.sign() if isinstance(budget, Linf) else gradient / gradient.norm()
        return project(x + eta * unit)

    def project(x: Tensor) -> Tensor:
        r = x - clean
        r = r.clamp(-radius, radius) if isinstance(budget, Linf) else r * min(1.0, radius / r.norm().item())
        return (clean + r).clamp(0, 1)

    radius = budget.radii(clean).item()
    w, etas = checkpoints(steps), [2 * radius]
    points, values = [start], [f(start)[0]]
    best, tops, halvings = start, [values[0]], {0: False}
    seen = [start]
    for k in range(1, steps + 1):
        z = ahead(points[-1], etas[-1])
        last_move = points[-1] - points[max(-2, -k)]
        x = z if k == 1 else project(points[-1] + 0.75 * (z - points[-1]) + 0.25 * last_move)
        seen.append(x)
        value = f(x)[0]
        best = x if value > tops[-1] else best
        points.append(x)
        values.append(value)
        tops.append(max(value, tops[-1]))
        etas.append(etas[-1])
        if k in w[1:]:
            last = w[w.index(k) - 1]
            rises = sum(bool(values[i + 1] > values[i]) for i in range(last, k))
            halvings[k] = rises < 0.75 * (k - last) or (not halvings[last] and tops[last] == tops[k])
            if halvings[k]:
                etas[-1] /= 2
                points[-1], values[-1] = best, tops[-1]
    return seen, etas


@pytest.mark.parametrize("budget", [Linf(0.2), L2(1.0), Dissimilarity(0.3)], ids=str)
def test_the_points_visited_are_those_of_the_published_algorithm(budget: Budget, images: Tensor) -> None:
    model = Perceptron().eval()
    halved = 0
    for i in range(3):
        image = images[i : i + 1]
        label = decisions(model, image)
        visited = seen_by(model, lambda x=image, y=label: apgd(model, x, y, budget=budget, steps=23))
        expected, etas = published(model, image, label, visited[0], budget, steps=23)
        halved += sum(later < before for before, later in pairwise(etas))
        assert len(visited) == len(expected) + 1  # the last is the check of the result
        for found, point in zip(visited, expected, strict=False):
            assert torch.allclose(found, point, rtol=0, atol=1e-9)
    assert halved >= 3


@pytest.mark.parametrize("budget", [Linf(0.05), L2(0.3), Dissimilarity(0.1), Dissimilarity(0.1, "gradient")], ids=str)
def test_on_a_linear_model_it_ends_at_the_optimum(budget: Budget, images: Tensor) -> None:
    model = Linear(2)
    labels = decisions(model, images)
    slope = (model.weight[1 - labels] - model.weight[labels]).detach().view_as(images)
    steepest = slope.sign() if isinstance(budget, Linf) else slope / slope.flatten(1).norm(dim=1)[:, None, None, None]
    expected = images + budget.radii(images)[:, None, None, None] * steepest
    for targets in (None, 1 - labels):
        result = apgd(model, images, labels, budget=budget, targets=targets, steps=50)
        assert torch.allclose(result.images, expected, rtol=0, atol=1e-15 if isinstance(budget, Linf) else 1e-6)


@pytest.mark.parametrize("kind", [Linf, L2, Dissimilarity])
def test_on_a_linear_model_it_succeeds_exactly_beyond_the_distance(kind: type[Budget], images: Tensor) -> None:
    model = Linear(2)
    labels = decisions(model, images)
    gaps = (model(images).diff(dim=1)[:, 0].abs()).detach()
    slope = (model.weight[1] - model.weight[0]).detach()
    distances = gaps / (slope.abs().sum() if kind is Linf else slope.norm())
    distances = distances / images.flatten(1).norm(dim=1) if kind is Dissimilarity else distances
    for i, distance in enumerate(distances[:4].tolist()):
        for factor, reaches in ((0.999, False), (1.001, True)):
            budget = kind(factor * distance)
            result = apgd(model, images[i : i + 1], labels[i : i + 1], budget=budget, steps=15)
            assert result.success.item() is reaches


def test_it_finds_no_less_than_pgd_with_as_many_gradients(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, images, labels = trained
    for budgets in ([Linf(size) for size in (0.06, 0.09)], [L2(size) for size in (0.35, 0.5)]):
        found = [
            sum(attack(model, images, labels, budget=budget, steps=25).success.sum().item() for budget in budgets)
            for attack in (apgd, pgd)
        ]
        assert 0 < found[1] <= found[0] < 80


@pytest.mark.parametrize(("norm", "budget"), [("Linf", Linf(0.08)), ("L2", L2(0.5))])
@pytest.mark.parametrize("loss", ["cross-entropy", "dlr", "targeted"])
def test_from_the_same_start_it_breaks_what_the_authors_own_breaks(
    norm: str, budget: Budget, loss: str, trained: tuple[nn.Module, Tensor, Tensor]
) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    model, images, labels = trained
    results = []
    if loss == "targeted":
        theirs = base.APGDAttack_targeted(model, n_iter=30, norm=norm, eps=budget.size)
        others = model(images).detach().scatter(1, labels[:, None], -torch.inf)
        theirs.y_target = others.argmax(1)
        attack = lambda: results.append(apgd_targeted(model, images, labels, budget=budget, steps=30, classes=1))  # noqa: E731
    else:
        short = {"cross-entropy": "ce", "dlr": "dlr"}[loss]
        theirs = base.APGDAttack(model, n_iter=30, norm=norm, eps=budget.size, loss=short)
        attack = lambda: results.append(apgd(model, images, labels, budget=budget, steps=30, loss=loss))  # noqa: E731
    start = seen_by(model, attack)[1 if loss == "targeted" else 0]
    theirs.init_hyperparam(images)
    with torch.random.fork_rng():
        _, robust, losses, _ = theirs.attack_single_run(images, labels, x_init=start)
    assert 0 < (~robust).sum() < len(images)
    assert not (~robust & ~results[0].success).any()
    if loss == "cross-entropy":  # the largest loss and an error are at the same iterate
        ours = F.cross_entropy(model(results[0].images), labels, reduction="none").detach()
        assert torch.allclose(ours, losses, rtol=1e-3)


def test_dlr_does_not_care_for_the_scale_of_the_logits(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, images, labels = trained

    class Loud(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 1000 * model(images)

    found = {
        loss: [apgd(m, images, labels, budget=Linf(0.08), steps=20, loss=loss).success for m in (model, Loud())]
        for loss in ("cross-entropy", "dlr")
    }
    assert torch.equal(*found["dlr"])
    assert found["cross-entropy"][1].sum() < found["cross-entropy"][0].sum() / 2  # its gradient has vanished


def test_an_image_that_stops_at_its_success_has_the_same_success_for_less(
    trained: tuple[nn.Module, Tensor, Tensor],
) -> None:
    model, images, labels = trained
    whole = apgd(model, images, labels, budget=L2(0.5), steps=30, restarts=2)
    results = []
    batches = seen_by(
        model,
        lambda: results.append(apgd(model, images, labels, budget=L2(0.5), steps=30, restarts=2, until_success=True)),
    )
    stopped = results[0]
    assert 0 < whole.success.sum() < len(images)
    assert torch.equal(stopped.success, whole.success)
    assert (whole.queries == 2 * 61 + 1).all()
    assert (stopped.queries[~stopped.success] == 2 * 61 + 1).all()
    assert (stopped.queries[stopped.success] < 2 * 61 + 1).any()
    shown = sum(map(len, batches))  # each but the last of a run, and the check at the end, has a gradient too
    ended = int((stopped.queries == 2 * 61 + 1).sum()) * 2 + int(((stopped.queries - 1) % 2).sum())
    assert int(stopped.queries.sum()) == 2 * shown - len(images) - ended


def test_more_restarts_only_add(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, images, labels = trained
    one, three = (apgd(model, images, labels, budget=L2(0.5), steps=10, restarts=n) for n in (1, 3))
    assert (three.success | ~one.success).all()
    losses = [F.cross_entropy(model(result.images), labels, reduction="none").detach() for result in (one, three)]
    both = one.success == three.success
    assert (losses[1] >= losses[0] - 1e-5)[both].all()


class Decoy(nn.Module):
    """The likeliest wrong class cannot be reached; the next one can, along the first pixel."""

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0]
        still = torch.zeros_like(first)
        return torch.stack([still + 1, still + 0.9, 4 * (first - 0.5), still - 1, still - 2], 1)  # from 0.75 on


def test_one_class_after_the_other_is_tried(images: Tensor) -> None:
    labels = torch.zeros(len(images), dtype=torch.int64)
    assert not apgd_targeted(Decoy(), images, labels, budget=Linf(0.4), classes=1, steps=10, seed=1).success.any()
    result = apgd_targeted(Decoy(), images, labels, budget=Linf(0.4), classes=2, steps=10, seed=1)
    assert result.success.all()
    assert (decisions(Decoy(), result.images) == 2).all()
    assert (result.queries > 21 + 1).all()


def test_an_error_counts_whichever_class_it_is(images: Tensor) -> None:
    class Overtaken(nn.Module):
        """On the way to class 1, which always stays below class 0, class 2 gets ahead of both."""

        def forward(self, images: Tensor) -> Tensor:
            first = images[:, 0, 0, 0] - 0.5
            return torch.stack([torch.ones_like(first), 0.6 + 0.5 * first, 4 * first], 1)

    labels = torch.zeros(len(images), dtype=torch.int64)
    result = apgd_targeted(Overtaken(), images, labels, budget=Linf(0.4), classes=1, steps=10, loss="margin", seed=1)
    assert result.success.all()
    assert (decisions(Overtaken(), result.images) == 2).all()
    assert (result.queries < 10).all()  # it is noticed at once


def test_targeted_runs_leave_out_what_is_wrong_or_broken_already(
    perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    result = apgd_targeted(perceptron, images, labels, budget=Linf(0.4), steps=10)
    assert result.success.all()
    assert torch.equal(result.images[-1], images[-1])
    assert result.queries[-1] == 2
    hopeless = apgd_targeted(perceptron, images, labels, budget=Linf(0.0), steps=10)
    assert hopeless.queries.tolist() == [1 + 4 * 21 + 1] * 6 + [2]


def test_a_target_is_what_counts_where_there_is_one(perceptron: Perceptron, images: Tensor) -> None:
    labels = decisions(perceptron, images)
    targets = (labels + 2) % 5
    result = apgd(perceptron, images, labels, budget=Linf(0.5), targets=targets, steps=30)
    assert torch.equal(result.success, decisions(perceptron, result.images) == targets)
    assert result.success.any()
