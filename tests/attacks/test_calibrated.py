"""The strength against its closed form and brute force; the mean re-measured on the images."""

import math

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import L2, AttackResult, Budget, Dissimilarity, Linf, bim, fgsm
from quasinat.attacks.calibrated import calibrated
from quasinat.errors import InputError, UsageError

from .conftest import Perceptron, decisions


def mean_dissimilarity(images: Tensor, attacked: Tensor) -> float:
    """The mean over the set of ||x_adv - x||_2 / ||x||_2, spelt out."""
    ratios = [float((b - a).pow(2).sum().sqrt() / a.pow(2).sum().sqrt()) for a, b in zip(images, attacked, strict=True)]
    return sum(ratios) / len(ratios)


@pytest.fixture
def photos(images: Tensor) -> Tensor:
    """Images of which many pixels are black or white or nearly so: clipping counts."""
    return ((images - 0.5) * 8 + 0.5).clamp(0, 1)


def responding(response, calls: list[float] | None = None):
    """An attack that brightens every image uniformly by a function of the strength, in L2-dissimilarity."""

    def attack(model: nn.Module, images: Tensor, labels: Tensor, *, budget: Budget) -> AttackResult:
        if calls is not None:
            calls.append(budget.size)
        grey = torch.full_like(images, 0.25)  # 0.25 (1 + d) has dissimilarity d from 0.25
        moved = grey * (1 + response(budget.size))
        return AttackResult(moved, torch.zeros_like(labels, dtype=torch.bool), torch.ones_like(labels))

    return attack


@pytest.mark.parametrize("value", [0.01, 0.08, 0.2])
def test_away_from_the_edges_the_strength_is_the_closed_form(
    value: float, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    result = calibrated(fgsm, perceptron, images, labels, target=Dissimilarity(value))
    norms = torch.linalg.vector_norm(images.flatten(1), dim=1)
    closed = value / float((math.sqrt(images[0].numel()) / norms).mean())
    assert float(result.stats["strength"][0]) == pytest.approx(closed, rel=1e-3)
    assert mean_dissimilarity(images, result.images) == pytest.approx(value, rel=1e-3)
    assert result.stats["dissimilarity"].std() > 0  # one strength for all: the images differ


@pytest.mark.parametrize("value", [0.02, 0.1, 0.3])
def test_with_clipping_it_is_what_bisection_finds(
    value: float, perceptron: Perceptron, photos: Tensor, labels: Tensor
) -> None:
    result = calibrated(fgsm, perceptron, photos, labels, target=Dissimilarity(value), tolerance=1e-6)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        moved = mean_dissimilarity(photos, fgsm(perceptron, photos, labels, budget=Linf(middle)).images)
        low, high = (middle, high) if moved < value else (low, middle)
    strength = float(result.stats["strength"][0])
    assert strength == pytest.approx(low, rel=1e-5)
    assert mean_dissimilarity(photos, result.images) == pytest.approx(value, rel=1e-6)
    norms = torch.linalg.vector_norm(photos.flatten(1), dim=1)
    assert strength > 1.01 * value / float((math.sqrt(photos[0].numel()) / norms).mean())  # clipping did count


@pytest.mark.parametrize("kind", [Linf, L2, Dissimilarity])
@pytest.mark.parametrize("attack", [fgsm, bim])
def test_the_result_is_the_attack_at_the_strength_found(
    kind, attack, perceptron: Perceptron, photos: Tensor, labels: Tensor
) -> None:
    options = {"steps": 4} if attack is bim else {}
    tolerance = 1e-2 if attack is bim else 1e-3  # the mean of seven images leaps where one of them turns
    result = calibrated(
        attack, perceptron, photos, labels, target=Dissimilarity(0.1), kind=kind, tolerance=tolerance, **options
    )
    assert mean_dissimilarity(photos, result.images) == pytest.approx(0.1, rel=tolerance)
    strengths = result.stats["strength"]
    assert strengths.shape == (7,)
    assert strengths.unique().numel() == 1
    again = attack(perceptron, photos, labels, budget=kind(float(strengths[0])), **options)
    assert torch.equal(again.images, result.images)
    assert torch.equal(again.success, result.success)
    assert torch.equal(result.success, decisions(perceptron, result.images) != labels)
    measured = torch.linalg.vector_norm((result.images - photos).flatten(1), dim=1)
    measured /= torch.linalg.vector_norm(photos.flatten(1), dim=1)
    assert torch.allclose(result.stats["dissimilarity"], measured, rtol=1e-12)


def test_a_larger_target_has_a_larger_strength(perceptron: Perceptron, photos: Tensor, labels: Tensor) -> None:
    strengths = [
        float(calibrated(fgsm, perceptron, photos, labels, target=Dissimilarity(value)).stats["strength"][0])
        for value in (0.0, 0.01, 0.03, 0.1, 0.3, 0.5)
    ]
    assert strengths == sorted(set(strengths))
    assert strengths[0] == 0.0


@pytest.mark.parametrize(
    ("response", "inverse"),
    [
        (lambda s: s, lambda v: v),
        (lambda s: 0.001 * s, lambda v: 1000 * v),
        (lambda s: 1000 * s, lambda v: v / 1000),
        (lambda s: s**3, lambda v: v ** (1 / 3)),
        (lambda s: s ** (1 / 3), lambda v: v**3),
        (lambda s: math.tanh(5 * s) / 4, lambda v: math.atanh(4 * v) / 5),
        (lambda s: max(0.0, s - 3), lambda v: v + 3),
        (lambda s: 0.1 * (s > 2) + 0.2 * max(s - 2, 0), lambda v: 2 + (v - 0.1) / 0.2),
    ],
    ids=["line", "weak", "strong", "cube", "root", "saturating", "late", "leaping"],
)
@pytest.mark.parametrize("value", [0.15, 0.245])
def test_any_increasing_response_is_inverted_in_a_few_tries(response, inverse, value: float) -> None:
    images, calls = torch.full((2, 1, 2, 2), 0.25, dtype=torch.float64), []
    labels = torch.zeros(2, dtype=torch.int64)
    huge = 1e9  # a kind whose strengths count in small units: none of them holds the whole box
    result = calibrated(
        responding(lambda size: response(size * huge), calls),
        nn.Identity(),
        images,
        labels,
        target=Dissimilarity(value),
        kind=lambda strength: Linf(strength / huge),
        tolerance=1e-5,
    )
    assert mean_dissimilarity(images, result.images) == pytest.approx(value, rel=1e-5)
    assert float(result.stats["strength"][0]) == pytest.approx(inverse(value), rel=1e-3)
    assert len(calls) <= 20
    assert result.queries.tolist() == [len(calls)] * 2  # the queries of all tries


def test_targets_and_batches_are_cut_alike(perceptron: Perceptron, photos: Tensor, labels: Tensor) -> None:
    targets = (labels + 2) % 5
    whole, parts = (
        calibrated(
            fgsm, perceptron, photos, labels, target=Dissimilarity(0.1), targets=targets, batch_size=size, loss="margin"
        )
        for size in (None, 3)
    )
    assert torch.allclose(whole.images, parts.images, rtol=0, atol=1e-9)
    assert torch.equal(whole.success, parts.success)
    assert torch.equal(whole.queries, parts.queries)
    assert torch.equal(whole.success, decisions(perceptron, whole.images) == targets)
    for name in ("dissimilarity", "strength"):
        assert torch.allclose(whole.stats[name], parts.stats[name], rtol=1e-9)


def test_a_target_beyond_the_box_is_refused_with_what_the_box_allows(
    perceptron: Perceptron, photos: Tensor, labels: Tensor
) -> None:
    most = mean_dissimilarity(photos, fgsm(perceptron, photos, labels, budget=Linf(1.0)).images)
    for value in (1.01 * most, 30.0):
        with pytest.raises(UsageError, match=f"by {most:.4g} on average where only the box"):
            calibrated(fgsm, perceptron, photos, labels, target=Dissimilarity(value))
    reached = calibrated(fgsm, perceptron, photos, labels, target=Dissimilarity(0.99 * most))
    assert mean_dissimilarity(photos, reached.images) == pytest.approx(0.99 * most, rel=1e-3)


def test_a_leap_over_the_target_is_no_success() -> None:
    images, labels = torch.full((2, 1, 2, 2), 0.25), torch.zeros(2, dtype=torch.int64)
    leap = responding(lambda s: 0.05 if s < 0.02 else 0.5)
    with pytest.raises(
        UsageError, match=r"after 30 tries .*: 0\.05 at strength 0\.02 and 0\.5 at strength 0\.02;.* leaps"
    ):
        calibrated(leap, nn.Identity(), images, labels, target=Dissimilarity(0.1))


def test_senseless_requests_are_refused(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    black = images.clone()
    black[2] = 0
    near = Dissimilarity(0.1)
    with pytest.raises(InputError, match="image 2 is black"):
        calibrated(fgsm, perceptron, black, labels, target=near)
    with pytest.raises(InputError, match="no images"):
        calibrated(fgsm, perceptron, images[:0], labels[:0], target=near)
    with pytest.raises(InputError, match="image 0 has a label beyond"):
        calibrated(fgsm, perceptron, images, labels + 100, target=near)
    with pytest.raises(UsageError, match="target is inf"):
        calibrated(fgsm, perceptron, images, labels, target=Dissimilarity(math.inf))
    with pytest.raises(UsageError, match="tolerance"):
        calibrated(fgsm, perceptron, images, labels, target=near, tolerance=0.0)
    with pytest.raises(UsageError, match="max_steps"):
        calibrated(fgsm, perceptron, images, labels, target=near, max_steps=0)
    with pytest.raises(UsageError, match="batch_size"):
        calibrated(fgsm, perceptron, images, labels, target=near, batch_size=0)
    assert all(module.training for module in perceptron.modules())
