"""The goals and losses against formulas written out number by number, ties included."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import Linf, bim
from quasinat.attacks.goal import LOSSES, Goal, check_loss, cross_entropy, difference_of_logits_ratio, margin
from quasinat.errors import UsageError

COUNT = 60
every_count = pytest.mark.parametrize("classes", [2, 3, 4, 10])
Truth = Callable[[list[float], int, int | None], float]


def cases(classes: int, ties: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and targets other than the labels; half of the rows hold ties, and the last one nothing else."""
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn(COUNT, classes, generator=generator, dtype=torch.float64)
    if ties:
        logits[::2] = logits[::2].clamp(-1, 2).round()
        logits[-1] = 1.5
        assert (logits.sort(1).values.diff(dim=1) == 0).any(1).sum() > COUNT // 8
    labels = torch.randint(classes, (COUNT,), generator=generator)
    targets = (labels + torch.randint(1, classes, (COUNT,), generator=generator)) % classes
    return logits, labels, targets


def true_cross_entropy(z: list[float], label: int, target: int | None) -> float:
    peak = max(z)
    total = peak + math.log(math.fsum(math.exp(value - peak) for value in z))
    return total - z[label] if target is None else z[target] - total


def true_margin(z: list[float], label: int, target: int | None) -> float:
    wanted = label if target is None else target
    rival = max(value for k, value in enumerate(z) if k != wanted)
    return rival - z[label] if target is None else z[target] - rival


def true_dlr(z: list[float], label: int, target: int | None) -> float:
    ordered = sorted(z, reverse=True)
    third, fourth = ordered[min(2, len(z) - 1)], ordered[min(3, len(z) - 1)]
    if target is None:
        rival = max(value for k, value in enumerate(z) if k != label)
        top, bottom = z[label] - rival, ordered[0] - third
    else:
        top, bottom = z[label] - z[target], ordered[0] - (third + fourth) / 2
    if bottom == 0:  # the first three tie; beyond them the ratio grows without limit
        return 0.0 if top == 0 else math.copysign(math.inf, -top)
    return -top / bottom


TRUTHS: dict[str, Truth] = {"cross-entropy": true_cross_entropy, "margin": true_margin, "dlr": true_dlr}


@every_count
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_are_their_formulas(name: str, targeted: bool, classes: int) -> None:
    logits, labels, targets = cases(classes)
    wanted: list[int | None] = list(targets.tolist()) if targeted else [None] * COUNT
    rows = zip(logits.tolist(), labels.tolist(), wanted, strict=True)
    expected = torch.tensor([TRUTHS[name](*row) for row in rows], dtype=torch.float64)
    found = Goal(labels, targets if targeted else None).loss(name, logits)
    limited = expected.isfinite()
    assert limited[1::2].all()
    torch.testing.assert_close(found[limited], expected[limited], rtol=1e-12, atol=1e-12)
    assert (found * expected.sign())[~limited].gt(1e9).all()


@every_count
@pytest.mark.parametrize("targeted", [False, True])
def test_the_goal_is_reached_where_the_first_largest_logit_says_so(targeted: bool, classes: int) -> None:
    logits, labels, targets = cases(classes)
    said = [row.index(max(row)) for row in logits.tolist()]
    if targeted:
        expected = [one == target for one, target in zip(said, targets.tolist(), strict=True)]
    else:
        expected = [one != label for one, label in zip(said, labels.tolist(), strict=True)]
    assert Goal(labels, targets if targeted else None).reached(logits).tolist() == expected
    assert 0 < sum(expected) < COUNT


@every_count
@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_the_margin_is_positive_exactly_where_an_error_is_made(name: str, classes: int) -> None:
    logits, labels, targets = cases(classes, ties=False)
    assert Goal(labels).loss(name, logits).gt(0).equal(Goal(labels).reached(logits))
    if name == "margin":  # the targeted DLR compares the target with the label only
        assert Goal(labels, targets).loss(name, logits).gt(0).equal(Goal(labels, targets).reached(logits))
    tied, labels, targets = cases(classes)
    for goal in (Goal(labels), Goal(labels, targets)):
        values, reached = goal.loss("margin", tied), goal.reached(tied)
        assert reached[values > 0].all()
        assert not reached[values < 0].any()
        assert (values == 0).any()


@every_count
@pytest.mark.parametrize("targeted", [False, True])
def test_neither_a_shift_nor_a_positive_scale_changes_the_ratio(targeted: bool, classes: int) -> None:
    logits, labels, targets = cases(classes)
    if classes > 2:  # where the first three tie there is no ratio
        first = logits.sort(1, descending=True).values
        some = first[:, 0] > first[:, 2]
        logits, labels, targets = logits[some], labels[some], targets[some]
    goal = Goal(labels, targets if targeted else None)
    ratio = goal.loss("dlr", logits)
    for changed in (logits + 7.25, 1e-4 * logits, 1e5 * logits - 3):
        torch.testing.assert_close(goal.loss("dlr", changed), ratio, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(goal.loss("dlr", -logits), ratio)
    assert targeted or ratio.min() >= -1 - 1e-12


@every_count
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_finite_differences(name: str, targeted: bool, classes: int) -> None:
    logits, labels, targets = cases(classes, ties=False)
    goal = Goal(labels, targets if targeted else None)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(goal.loss(name, leaf).sum(), leaf)
    for column in range(classes):
        step = torch.zeros_like(logits)
        step[:, column] = 1e-6
        slope = (goal.loss(name, logits + step) - goal.loss(name, logits - step)) / 2e-6
        torch.testing.assert_close(gradient[:, column], slope, rtol=1e-5, atol=1e-6)
    slopes = gradient.abs().amax(1)
    if name == "dlr" and classes == 2:  # the ratio of two logits' difference to itself
        assert (slopes == 0).all()
    elif name == "dlr" and targeted and classes == 3:  # the same where label and target are the first and the last
        ends = logits.gather(1, torch.stack([labels, targets], 1)).diff(dim=1).abs()[:, 0]
        assert ((slopes > 1e-6) | (ends == logits.amax(1) - logits.amin(1))).all()
    else:
        assert (slopes > 1e-6)[~goal.reached(logits)].all()


@every_count
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_and_gradients_stay_finite_at_ties(dtype: torch.dtype, classes: int) -> None:
    logits, labels, targets = cases(classes)
    for name in LOSSES:
        for goal in (Goal(labels), Goal(labels, targets)):
            leaf = logits.to(dtype).requires_grad_()
            values = goal.loss(name, leaf)
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
            assert values.dtype == dtype
            assert values.isfinite().all()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("targets", [None, torch.ones(3, dtype=torch.int64)])
@pytest.mark.parametrize("name", LOSSES)
def test_a_model_of_which_all_logits_tie_can_be_attacked(name: str, targets: Tensor | None) -> None:
    class Bent(nn.Module):
        """All logits are zero at grey; the slopes there are steep, but not the same."""

        def forward(self, images: Tensor) -> Tensor:
            slopes = torch.tensor([-20.0, 10.0, 5.0, 0.0])
            return 50 * (images - 0.5).flatten(1).sum(1, keepdim=True) * slopes

    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    result = bim(Bent(), images, labels, budget=Linf(0.01), targets=targets, loss=name)
    assert result.success.all()
    assert (result.images > 0.5).all()


def test_the_margin_climbs_where_the_cross_entropy_is_flat() -> None:
    logits = torch.tensor([[500.0, -500.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0])
    (flat,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    assert flat.abs().max() == 0
    (steep,) = torch.autograd.grad(margin(logits, labels).sum(), logits)
    assert steep.tolist() == [[-1.0, 0.0, 1.0]]
    (scaled,) = torch.autograd.grad(difference_of_logits_ratio(logits, labels).sum(), logits)
    assert scaled.abs().max() > 1e-4


def test_the_goal_of_some_images() -> None:
    labels, targets = torch.tensor([3, 1, 4, 1]), torch.tensor([0, 2, 0, 5])
    rows = torch.tensor([2, 0])
    assert Goal(labels).of(rows).targets is None
    assert Goal(labels).of(rows).labels.tolist() == [4, 3]
    part = Goal(labels, targets).of(rows)
    assert part.targets is not None
    assert (part.labels.tolist(), part.targets.tolist()) == ([4, 3], [0, 0])
    by_mask = Goal(labels, targets).of(torch.tensor([False, True, False, True]))
    assert by_mask.targets is not None
    assert (by_mask.labels.tolist(), by_mask.targets.tolist()) == ([1, 1], [2, 5])


def test_a_misspelt_loss_names_the_close_match() -> None:
    for name in LOSSES:
        check_loss(name)
    with pytest.raises(UsageError, match="unknown loss 'cross_entropy'; did you mean 'cross-entropy'"):
        check_loss("cross_entropy")
