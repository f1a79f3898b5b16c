"""Attacks with a target, and ascents that stop at their first success."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import L2, AttackResult, Budget, Linf, bim, carlini_wagner, fgsm, pgd
from quasinat.errors import InputError
from sparse_coding.unchecked import unchecked

from .conftest import BUDGETS, SHAPE, Linear, Perceptron, decisions

LOSSES = ["cross-entropy", "margin", "dlr"]
Attack = Callable[..., AttackResult]
TARGETED: list[Attack] = [fgsm, bim, pgd, carlini_wagner]
QUICK: dict[Attack, dict[str, Any]] = {
    bim: {"steps": 10},
    pgd: {"steps": 10, "restarts": 2},
    carlini_wagner: {"steps": 15, "search_steps": 3, "initial_constant": 1.0},
}
every_attack = pytest.mark.parametrize("attack", TARGETED)
every_loss = pytest.mark.parametrize("loss", LOSSES)


@pytest.fixture
def targets(perceptron: Perceptron, images: Tensor) -> Tensor:
    """One to four classes on from what the model says; the last image is there already."""
    own = decisions(perceptron, images)
    targets = (own + 1 + torch.arange(len(own)) % 4) % 5
    targets[-1] = own[-1]
    return targets


def run(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> AttackResult:
    return attack(model, images, labels, **{"budget": Linf(0.1), **QUICK.get(attack, {}), **options})


@every_attack
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_success_is_that_the_target_is_said(
    attack: Attack, budget: Budget, perceptron: Perceptron, images: Tensor, labels: Tensor, targets: Tensor
) -> None:
    kept = targets.clone()
    for size in (budget.size, 6 * budget.size):
        result = run(attack, perceptron, images, labels, targets=targets, budget=budget.resized(size))
        assert result.success.equal(decisions(perceptron, result.images) == targets)
        assert (budget.measure(images, result.images) <= size * (1 + 1e-9)).all()
    assert result.success.sum() >= 3
    assert targets.equal(kept)


@pytest.mark.parametrize("attack", [bim, pgd, carlini_wagner])
def test_an_infinite_budget_reaches_every_target(
    attack: Attack, perceptron: Perceptron, images: Tensor, labels: Tensor, targets: Tensor
) -> None:
    options = {"steps": 40} if attack is not carlini_wagner else {"budget": None, "steps": 60, "search_steps": 4}
    result = run(attack, perceptron, images, labels, targets=targets, **{"budget": L2(math.inf), **options})
    assert result.success.all()
    assert decisions(perceptron, result.images).equal(targets)


@every_attack
def test_one_image_alone_fares_as_in_its_batch(
    attack: Attack, perceptron: Perceptron, images: Tensor, labels: Tensor, targets: Tensor
) -> None:
    for options in [{}] if attack in (fgsm, carlini_wagner) else [{}, {"until_success": True}]:
        together = run(attack, perceptron, images, labels, targets=targets, **options)
        for i in (0, 3, 6):
            rows = slice(i, i + 1)
            alone = run(attack, perceptron, images[rows], labels[rows], targets=targets[rows], **options)
            torch.testing.assert_close(alone.images[0], together.images[i], rtol=0, atol=1e-9)
            assert alone.success[0] == together.success[i]
            assert alone.queries[0] == together.queries[i]


@every_attack
def test_impossible_targets_are_refused_by_name(
    attack: Attack, perceptron: Perceptron, images: Tensor, labels: Tensor, targets: Tensor
) -> None:
    beyond, negative = targets.clone(), targets.clone()
    beyond[2], negative[5] = 5, -1
    with pytest.raises(InputError, match=r"image 2 has a target beyond the model's classes; targets go from 0 to 4"):
        run(attack, perceptron, images, labels, targets=beyond)
    with pytest.raises(InputError, match="image 5 has a negative target; number the classes from 0"):
        run(attack, perceptron, images, labels, targets=negative)
    with unchecked():
        with pytest.raises(InputError, match=r"the targets are torch\.int32; convert them to int64"):
            run(attack, perceptron, images, labels, targets=targets.int())
        with pytest.raises(InputError, match=r"the targets have shape \(3,\) for 7 images; give one target per image"):
            run(attack, perceptron, images, labels, targets=targets[:3])
    with pytest.raises(InputError, match="image 2 has a label beyond"):
        run(attack, perceptron, images, beyond, targets=targets)
    assert all(module.training for module in perceptron.modules())


def test_a_targeted_step_on_a_linear_model_goes_to_the_target(images: Tensor) -> None:
    model = Linear(4)
    labels, targets = torch.zeros(7, dtype=torch.int64), torch.full((7,), 2)
    moved = fgsm(model, images, labels, targets=targets, budget=L2(1e-4), loss="margin").images - images
    with torch.no_grad():
        rivals = model(images).scatter(1, targets[:, None], -torch.inf).argmax(1)
        wanted = model.weight[2] - model.weight[rivals]
    torch.testing.assert_close(moved.flatten(1), 1e-4 * wanted / wanted.norm(dim=1, keepdim=True))


def distances_to(model: Linear, images: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """The L2 distance of each image to the region where a linear model says the target, whatever faces are active.

    The nearest point of the polyhedron lies on some of its faces: each set of faces is projected on in closed form,
    and of the points that satisfy all the faces the nearest counts. Also of how many images it is one face alone.
    """
    found, single = [], 0
    for image, target in zip(images.flatten(1), targets.tolist(), strict=True):
        others = [k for k in range(len(model.weight)) if k != target]
        normals = (model.weight[target] - model.weight[others]).detach()
        logits = model(image.view(1, *SHAPE)).detach()[0]
        slacks = logits[target] - logits[others]
        best, count = (0.0, 0) if (slacks >= 0).all() else (math.inf, 0)
        for size in range(1, len(others) + 1):
            for faces in itertools.combinations(range(len(others)), size):
                rows = list(faces)
                step = -torch.linalg.pinv(normals[rows]) @ slacks[rows]
                if (slacks + normals @ step >= -1e-9).all() and float(step.norm()) < best:
                    best, count = float(step.norm()), size
        found.append(best)
        single += count == 1
    return torch.tensor(found, dtype=torch.float64), single


@pytest.mark.parametrize("classes", [2, 4])
def test_the_targeted_distance_on_a_linear_model_is_that_to_the_targets_region(classes: int, images: Tensor) -> None:
    model = Linear(classes)
    own = decisions(model, images)
    targets = (own + 1 + torch.arange(len(own)) % (classes - 1)) % classes
    truth, single = distances_to(model, images, targets)
    assert (truth > 0).all()
    assert single >= 3
    result = carlini_wagner(model, images, own, targets=targets, steps=80, search_steps=6, initial_constant=0.1)
    assert result.success.all()
    assert decisions(model, result.images).equal(targets)
    found = L2(1.0).measure(images, result.images)
    assert (found >= truth * (1 - 1e-9)).all()
    torch.testing.assert_close(found, truth, rtol=0.05, atol=0)


@every_loss
@pytest.mark.parametrize("targeted", [False, True])
def test_every_loss_reaches_the_boundary_just_when_the_radius_does(loss: str, targeted: bool, images: Tensor) -> None:
    model = Linear(2 if loss != "dlr" else 3)  # the ratio of two logits has no slope
    with torch.no_grad():
        model.weight[2:].zero_()  # of three classes the last is out of the way: -9 everywhere
        model.bias[2:] = -9.0
    labels = model(images).argmax(1)
    direction = (model.weight[0] - model.weight[1]).detach()
    radii = model(images).detach()[:, :2].diff(dim=1).abs()[:, 0] / direction.norm()
    for i in range(2):
        rows = slice(i, i + 1)
        wanted = 1 - labels[rows] if targeted else None
        for factor, reaches in ((0.99, False), (1.02, True)):
            budget = L2(factor * float(radii[i]))
            result = bim(model, images[rows], labels[rows], targets=wanted, budget=budget, steps=8, loss=loss)
            assert result.success.item() is reaches


@pytest.mark.parametrize(("loss", "succeeds"), [("cross-entropy", False), ("margin", True), ("dlr", True)])
def test_a_model_too_sure_for_the_cross_entropy_falls_to_the_others(loss: str, succeeds: bool, images: Tensor) -> None:
    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Linear(4, torch.float32)

        def forward(self, images: Tensor) -> Tensor:
            return 1e4 * self.inner(images)

    model, images = Sure(), images.float()
    labels = decisions(model, images)
    assert bim(model, images, labels, budget=L2(2.0), loss=loss).success.tolist() == [succeeds] * 7


# Until success


def looks_of(model: nn.Module, attack: Callable[[], AttackResult]) -> tuple[AttackResult, list[Tensor]]:
    """The attack's result and the logits of every batch that it showed to the model."""
    seen: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, __, logits: seen.append(logits.detach()))
    try:
        return attack(), seen
    finally:
        hook.remove()


@every_loss
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("attack", [bim, pgd])
def test_it_stops_at_the_first_of_the_looks_that_would_have_succeeded(
    attack: Attack, budget: Budget, targeted: bool, loss: str, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    budget = budget.resized((1.5 if targeted else 0.7) * budget.size)
    steps = 8
    wanted = (decisions(perceptron, images) + 1) % 5 if targeted else None
    options: dict[str, Any] = {"budget": budget, "targets": wanted, "steps": steps, "loss": loss}
    full, seen = looks_of(perceptron, lambda: attack(perceptron, images, labels, **options))
    assert len(seen) == steps + 2  # the last is the re-check
    said = torch.stack([logits.argmax(1) for logits in seen[:-1]])
    hits = said != labels if wanted is None else said == wanted
    first = torch.where(hits.any(0), hits.int().argmax(0), steps)
    quick = attack(perceptron, images, labels, until_success=True, **options)
    assert quick.success.equal(hits.any(0))
    assert full.success.equal(hits[1:].any(0))
    assert quick.queries.equal(torch.where(first < steps, 2 * (first + 1), 2 * steps + 1) + 1)
    assert (full.queries == 2 * steps + 2).all()
    assert (budget.measure(images, quick.images) <= budget.size * (1 + 1e-9)).all()
    assert ((quick.images >= 0) & (quick.images <= 1)).all()
    torch.testing.assert_close(quick.images[~quick.success], full.images[~quick.success], rtol=0, atol=1e-12)
    assert quick.success.any()
    assert (quick.queries < full.queries)[quick.success & (first < steps)].all()


def test_an_image_that_is_wrong_already_costs_one_look(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    for size in (0.0, 0.05, 0.5):
        result = bim(perceptron, images, labels, budget=L2(size), until_success=True)
        assert result.success[-1]
        assert result.images[-1].equal(images[-1])
        assert result.queries[-1] == 3
        assert (result.queries[:-1] > 3).all()


def test_a_failed_image_is_an_iterate_after_the_start_even_if_all_of_them_are_better_for_the_model() -> None:
    class Peak(nn.Module):
        """Grey is where the model is least sure, though its slope there is not zero."""

        def forward(self, images: Tensor) -> Tensor:
            moved = (images - 0.5).flatten(1).sum(1)
            lead = 1 + moved.square() - 1e-3 * moved
            return torch.stack([lead, 0 * lead], 1)

    images, labels = torch.full((2, 1, 3, 3), 0.5), torch.zeros(2, dtype=torch.int64)
    for until_success in (False, True):
        result = bim(Peak(), images, labels, budget=Linf(0.1), steps=1, until_success=until_success)
        assert not result.success.any()
        assert not result.images.equal(images)


def test_restarts_are_spent_on_standing_images_only(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    options: dict[str, Any] = {"budget": L2(0.05), "steps": 3, "until_success": True}
    once = pgd(perceptron, images, labels, restarts=1, **options)
    assert once.success.any()
    assert not once.success.all()
    several, seen = looks_of(perceptron, lambda: pgd(perceptron, images, labels, restarts=4, **options))
    assert several.images[once.success].equal(once.images[once.success])
    assert several.queries[once.success].equal(once.queries[once.success])
    assert (several.queries > once.queries)[~once.success].all()
    assert several.success[once.success].all()
    assert several.queries[~several.success].tolist() == [4 * (2 * 3 + 1) + 1] * int((~several.success).sum())
    passes = sum(len(logits) for logits in seen)  # a look with a gradient is two queries, the last one of a climb one
    backward = int(several.queries.sum()) - passes
    assert 0 < backward < passes
    full = pgd(perceptron, images, labels, restarts=4, budget=L2(0.05), steps=3)
    assert several.success[full.success].all()


def test_once_all_have_succeeded_no_restart_asks_the_model(
    perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    result, seen = looks_of(
        perceptron, lambda: pgd(perceptron, images, labels, budget=L2(3.0), restarts=3, until_success=True)
    )
    assert result.success.all()
    assert all(len(logits) > 0 for logits in seen)


def test_a_later_restart_names_images_by_their_place_in_the_callers_batch(images: Tensor) -> None:
    class Breaks(nn.Module):
        """Wrong of the darker images from the start; from the third look on not finite."""

        def __init__(self) -> None:
            super().__init__()
            self.looks = 0

        def forward(self, images: Tensor) -> Tensor:
            self.looks += 1
            lead = 1e3 * (images.flatten(1).mean(1) - 0.5)
            return torch.stack([lead, -lead if self.looks < 3 else lead + torch.nan], 1)

    images = torch.tensor([0.2, 0.2, 0.9, 0.2, 0.9], dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, *SHAPE).clone()
    labels = torch.zeros(5, dtype=torch.int64)
    with pytest.raises(InputError, match="image 2 has logits that are not finite"):
        pgd(Breaks(), images, labels, budget=Linf(0.01), steps=1, restarts=2, until_success=True)
