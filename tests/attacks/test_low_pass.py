"""The attack in the band that passes uncoded: its subspace, its optimum on a model of the mean, and what it is for."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers import images_of, stratified, universal
from quasinat.attacks import L2, AttackResult, Budget, Dissimilarity, Linf, pgd
from quasinat.attacks.low_pass import low_pass
from quasinat.attacks.subspace import Projector
from quasinat.defended import Defended, EightBit
from quasinat.errors import InputError, UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Identity
from quasinat.sparse_coding.frequency_split import tikhonov_split

from .conftest import decisions

BUDGETS: list[Budget] = [Linf(0.02), L2(0.3), Dissimilarity(0.02), Dissimilarity(0.02, "gradient")]
every_budget = pytest.mark.parametrize("budget", BUDGETS, ids=str)


class Pixels(nn.Module):
    """Fixed random linear logits of the pixels."""

    def __init__(self, classes: int = 4, pixels: int = 1200) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(pixels, classes, generator=generator) / pixels**0.5)

    def forward(self, images: Tensor) -> Tensor:
        return (4 * (images - 0.5).flatten(1)) @ self.weight


class Mean(nn.Module):
    """Whether the mean of all pixels is above a threshold; the slope does not matter."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        excess = 3 * (images.flatten(1).mean(1) - self.threshold)
        return torch.stack([-excess, excess], 1)


def behind(layer: SparseTransformationLayer, classifier: nn.Module) -> Defended:
    return Defended(layer, classifier).eval().with_adjoint(Identity())


def soft(count: int, side: int = 20) -> Tensor:
    """Photographs without black or white."""
    return images_of(3, count, side, side) * 0.6 + 0.2


def projector_of(monkeypatch: pytest.MonkeyPatch, passed: float, images: Tensor) -> Projector:
    """The projection that the attack would climb in."""
    kept: list[Projector] = []

    def record(
        model: nn.Module, images: Tensor, labels: Tensor, projector: Callable[[Tensor], Projector], **_: object
    ) -> AttackResult:
        kept.append(projector(images))
        return AttackResult(images, labels > 0, labels)

    monkeypatch.setattr(importlib.import_module("quasinat.attacks.low_pass"), "within_subspace", record)
    labels = torch.zeros(len(images), dtype=torch.int64)
    low_pass(behind(universal(), Mean(0.5)), images, labels, budget=L2(1.0), passed=passed)
    return kept[0]


def in_band(images: Tensor, passed: float) -> Tensor:
    """Masked by SciPy's cosine transform: the cosines that the split's formula passes by at least `passed`."""
    from scipy.fft import dctn, idctn

    height, width = images.shape[-2:]
    response = torch.tensor(
        [
            [
                1 / (1 + 5 * (4 - 2 * math.cos(math.pi * k / height) - 2 * math.cos(math.pi * m / width)))
                for m in range(width)
            ]
            for k in range(height)
        ],
        dtype=torch.float64,
    )
    spectra = dctn(images.double().numpy(), axes=(2, 3), norm="ortho") * (response >= passed).numpy()
    return torch.from_numpy(idctn(spectra, axes=(2, 3), norm="ortho"))


@pytest.mark.parametrize("passed", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(20, 20), (9, 14)])
def test_the_projection_is_orthogonal_and_scipys_masked_cosines(
    shape: tuple[int, int], passed: float, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    first, second = torch.randn(2, 4, 3, *shape, generator=generator, dtype=torch.float64)
    project = projector_of(monkeypatch, passed, torch.full_like(first, 0.5))
    rows = torch.arange(4)
    torch.testing.assert_close(project(first, rows), in_band(first, passed), rtol=0, atol=1e-12)
    torch.testing.assert_close(project(project(first, rows), rows), project(first, rows), rtol=0, atol=1e-12)
    inner = (project(first, rows) * second).sum()
    torch.testing.assert_close(inner, (first * project(second, rows)).sum(), rtol=1e-10, atol=0)
    constant = torch.full_like(first, 0.3)
    torch.testing.assert_close(project(constant, rows), constant, rtol=0, atol=1e-12)
    if passed == 1:
        torch.testing.assert_close(
            project(first, rows), first.mean((2, 3), keepdim=True).expand_as(first), rtol=0, atol=1e-12
        )


def test_the_split_passes_of_a_cosine_what_the_projection_takes_it_to() -> None:
    # Of 32 pixels the split's margin of 16 makes one whole period of the mirrored image: the formula is exact.
    place = torch.arange(32, dtype=torch.float64) + 0.5
    waves = torch.stack([(math.pi * k * place / 32).cos() for k in range(32)])
    cosines = waves[:, None, :, None] * waves[None, :, None, :]
    low = tikhonov_split(cosines)[0]
    shares = (low * cosines).sum((2, 3)) / cosines.square().sum((2, 3))
    torch.testing.assert_close(low, shares[:, :, None, None] * cosines, rtol=0, atol=1e-12)
    for passed in (0.1, 0.5):
        kept = in_band(cosines, passed)
        expected = cosines * (shares >= passed)[:, :, None, None]
        torch.testing.assert_close(kept, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [8, 20, 48])
def test_at_other_sizes_the_formula_is_out_by_less_than_a_thousandth(side: int) -> None:
    place = torch.arange(side, dtype=torch.float64) + 0.5
    waves = torch.stack([(math.pi * k * place / side).cos() for k in range(side)])
    cosines = waves[:, None, None, :].expand(-1, 1, side, -1).contiguous()
    shares = 1 / (11 - 10 * torch.cos(math.pi * (place - 0.5) / side))
    expected = cosines * shares[:, None, None, None]
    torch.testing.assert_close(tikhonov_split(cosines)[0], expected, rtol=0, atol=1e-3)


@every_budget
@pytest.mark.parametrize("passed", [0.2, 0.5])
def test_the_perturbation_lies_in_the_band_and_in_the_ball(budget: Budget, passed: float) -> None:
    images = soft(4)
    model = behind(stratified(), Pixels())
    labels = decisions(model, images)
    result = low_pass(model, images, labels, budget=budget, passed=passed, steps=4)
    moved = (result.images - images).double()
    lengths = moved.flatten(1).norm(dim=1)
    assert (lengths > 0).all()
    assert ((moved - in_band(moved, passed)).flatten(1).norm(dim=1) < 1e-5 * lengths).all()
    assert (result.stats["outside"] < 1e-10).all()
    assert (budget.measure(images, result.images) <= budget.size * (1 + 1e-4)).all()
    assert result.success.equal(decisions(model, result.images) != labels)


def test_at_the_edge_of_the_box_the_share_outside_is_told() -> None:
    images = images_of(3, 3).clone()
    images[0, :, :10] = 1.0
    images[1] = images[1] * 0.2 + 0.4
    model = behind(universal(), Pixels())
    labels = decisions(model, images)
    result = low_pass(model, images, labels, budget=Linf(0.1), steps=4)
    assert ((result.images >= 0) & (result.images <= 1)).all()
    moved = (result.images - images).double()
    outside = (moved - in_band(moved, 0.5)).square().sum((1, 2, 3)) / moved.square().sum((1, 2, 3))
    torch.testing.assert_close(result.stats["outside"].double(), outside, rtol=1e-3, atol=1e-9)
    assert outside[0] > 0.01
    assert outside[1] < 1e-9


def test_the_coded_band_hardly_sees_it() -> None:
    images, budget = soft(4, 32), L2(0.5)
    model = behind(universal(), Pixels(pixels=3072))
    labels = decisions(model, images)
    shares = []
    for moved in (
        low_pass(model, images, labels, budget=budget, steps=5, passed=0.7).images - images,
        pgd(model, images, labels, budget=budget, steps=5).images - images,
    ):
        coded = tikhonov_split(moved)[1]
        shares.append(coded.flatten(1).norm(dim=1) / moved.flatten(1).norm(dim=1))
    assert (shares[0] <= 0.3 + 1e-4).all()  # each of its cosines passes by 0.7
    assert (shares[1] > 0.8).all()


@every_budget
def test_on_a_model_of_the_mean_it_succeeds_just_when_the_budget_does(budget: Budget) -> None:
    images = soft(2, 32)
    layer = universal()
    with torch.no_grad():
        means = layer(images).flatten(1).mean(1)  # T(x + c) = T(x) + c: a constant passes
    threshold = float(means.max()) + 0.03
    model = behind(layer, Mean(threshold))
    labels = decisions(model, images)
    assert labels.tolist() == [0, 0]
    lengths = images.flatten(1).norm(dim=1)
    for i in range(2):
        gap = threshold - float(means[i])
        needed = gap if isinstance(budget, Linf) else gap * 3072**0.5
        needed = needed / float(lengths[i]) if isinstance(budget, Dissimilarity) else needed
        for factor, reaches in ((0.98, False), (1.02, True)):
            sized = budget.resized(factor * needed)
            result = low_pass(model, images[i : i + 1], labels[i : i + 1], budget=sized, steps=10)
            assert result.success.item() is reaches
            if not reaches:
                torch.testing.assert_close(result.images, images[i : i + 1] + factor * gap, rtol=0, atol=1e-4)


def test_no_lambda_helps_against_it() -> None:
    images = soft(3, 32)
    lengths = images.flatten(1).norm(dim=1)
    for sparsity in (0.02, 0.2, 50.0):  # the last leaves no code at all
        layer = universal(sparsity=sparsity)
        with torch.no_grad():
            threshold = float(layer(images).flatten(1).mean(1).min()) - 0.02
        model = behind(layer, Mean(threshold))
        labels = decisions(model, images)
        assert labels.tolist() == [1, 1, 1]
        size = float(((layer(images).flatten(1).mean(1) - threshold) * 3072**0.5 / lengths).max()) * 1.02
        assert low_pass(model, images, labels, budget=Dissimilarity(size), steps=5).success.all()


def test_each_image_stops_at_its_first_success_and_on_its_own() -> None:
    images = soft(4)
    model = behind(stratified(), Pixels())
    labels = decisions(model, images)
    labels[2] = (labels[2] + 1) % 4
    looks: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, inputs, __: looks.append(inputs[0].detach().clone()))
    seen: list[tuple[int, int]] = []
    steps = 6
    result = low_pass(
        model, images, labels, budget=L2(1.0), steps=steps, on_step=lambda done, of: seen.append((done, of))
    )
    hook.remove()
    passes = sum(len(batch) for batch in looks)
    assert result.images[2].equal(images[2])
    assert result.queries[2] == 3
    assert (result.queries[~result.success] == 2 * steps + 2).all()
    assert result.success.any()
    assert not result.success.all()
    assert int(result.queries.sum()) > passes  # the backward passes
    assert seen == [(done + 1, steps) for done in range(steps)]
    for i in range(4):
        alone = low_pass(model, images[i : i + 1], labels[i : i + 1], budget=L2(1.0), steps=steps)
        torch.testing.assert_close(alone.images[0], result.images[i], rtol=0, atol=1e-4)
        assert (bool(alone.success), int(alone.queries)) == (bool(result.success[i]), int(result.queries[i]))
    # Of a failed image the iterate of the largest loss comes back.
    failed = int((~result.success).nonzero()[0])
    with torch.no_grad():
        returned = nn.functional.cross_entropy(model(result.images), labels, reduction="none")[failed]
        tried = [b for batch in looks[:-1] for b in batch if (b - images[failed]).abs().max() < 0.3]
        losses = nn.functional.cross_entropy(
            model(torch.stack(tried)), labels[failed].expand(len(tried)), reduction="none"
        )
    assert float(returned) == pytest.approx(float(losses.max()), abs=1e-4)


def test_no_budget_no_change_and_an_empty_batch() -> None:
    images = soft(2)
    for layer in (universal(), stratified()):
        model = behind(layer, Pixels())
        labels = decisions(model, images)
        result = low_pass(model, images, labels, budget=Linf(0.0), steps=2)
        assert result.images.equal(images)
        assert result.stats["outside"].tolist() == [0, 0]
        assert len(low_pass(model, images[:0], labels[:0], budget=Linf(0.1)).images) == 0
        assert len(low_pass(model, images, labels, budget=Linf(math.inf), steps=2).images) == 2


def test_what_it_cannot_be_aimed_at_is_refused() -> None:
    images, labels = soft(2), torch.zeros(2, dtype=torch.int64)

    def refused(pattern: str, model: Any = None, error: type[Exception] = UsageError, **options: Any) -> None:
        with pytest.raises(error, match=pattern):
            low_pass(model or behind(universal(), Pixels()), images, labels, budget=L2(0.1), **options)

    refused("split 'none' passes nothing through; use active-span", behind(universal(split="none"), Pixels()))
    refused("split 'mid-grey' passes nothing through", behind(universal(split="mid-grey"), Pixels()))
    refused("low-pass attack is aimed at a Sparse Transformation Layer", Defended(EightBit(), Pixels()))
    for passed in (0.0, -0.5, 1.01, math.nan):
        refused("passed is .*; give a share above 0 and at most 1", passed=passed)
    refused("steps is 0", steps=0)
    refused("unknown loss 'margins'; did you mean 'margin'", loss="margins")
    refused("no gradient is named", Defended(universal(), Pixels()).eval())
    labels = torch.tensor([0, 9])
    refused("image 1 has a label beyond", error=InputError)
