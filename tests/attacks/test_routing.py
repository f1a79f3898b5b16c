"""The attack on the vote: its measure against a count of neighbours; a model that only another stratum breaks."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers import dictionary_of, images_of, strata_of, stratified, universal
from quasinat.attacks import L2, Budget, Dissimilarity, Linf, pgd
from quasinat.attacks.routing import routing, vote_margin
from quasinat.defended import Defended, EightBit
from quasinat.errors import InputError, UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Dictionary, Identity
from quasinat.sparse_coding.frequency_split import tikhonov_split
from quasinat.strata import Strata
from quasinat.strata.pca import fit_pca

from .conftest import decisions

BUDGETS: list[Budget] = [Linf(0.02), L2(0.4), Dissimilarity(0.03), Dissimilarity(0.03, "gradient")]


class Pixels(nn.Module):
    """Fixed random linear logits of the pixels."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(400, classes, generator=generator) / 20)

    def forward(self, images: Tensor) -> Tensor:
        return 4 * (images - 0.5).flatten(1) @ self.weight


class Detail(nn.Module):
    """Whether an image's detail, its part above the low-pass one, is longer than a threshold (class 0) or not."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        excess = tikhonov_split(images)[1].square().sum((1, 2, 3)) - self.threshold**2
        return torch.stack([excess, -excess], 1)


def behind(layer: SparseTransformationLayer, classifier: nn.Module) -> Defended:
    return Defended(layer, classifier).eval().with_adjoint(Identity())


def grey(count: int) -> Tensor:
    """Grey photographs without black or white."""
    return images_of(1, count) * 0.6 + 0.2


def voters(count: int, neighbours: int, components: int | None = None) -> Strata:
    """Strata of thirty latents and random labels."""
    autoencoder = strata_of(1).autoencoder
    with torch.no_grad():
        latents = autoencoder.encode(grey(30))
    pca = fit_pca(latents, components) if components else None
    labels = torch.randint(count, (30,), generator=torch.Generator().manual_seed(3))
    return Strata(
        autoencoder,
        pca.project(latents) if pca else latents,
        labels,
        count=count,
        neighbours=neighbours,
        pca=pca,
    )


def queries_to(count: int) -> Tensor:
    """Images between the training images, so that votes are close."""
    generator = torch.Generator().manual_seed(7)
    base = grey(30)[torch.randint(30, (2, count), generator=generator)]
    return base[0] + (base[1] - base[0]) * torch.rand(count, 1, 1, 1, generator=generator)


@pytest.mark.parametrize("components", [None, 6])
@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_the_margin_of_the_vote_is_positive_just_where_a_majority_is_of_the_stratum(
    neighbours: int, components: int | None
) -> None:
    strata, images = voters(3, neighbours, components), queries_to(40)
    with torch.no_grad():
        latents = strata.autoencoder.encode(images)
        latents = (latents - strata.pca.mean) @ strata.pca.axes if strata.pca else latents
    distances = (latents[:, None].double() - strata.latents[None].double()).norm(dim=2)
    for stratum in range(3):
        margins = vote_margin(strata, images, stratum)
        assert margins.shape == (40,)
        assert (margins.abs() <= 1).all()
        expected = []
        for row in distances.tolist():
            nearest = sorted(range(30), key=row.__getitem__)[:neighbours]
            expected.append(sum(int(strata.labels[place]) == stratum for place in nearest) > neighbours / 2)
        assert (margins > 0).tolist() == expected
        assert 0 < sum(expected) < 40


def test_of_two_strata_the_margin_is_the_vote() -> None:
    for neighbours in (1, 5):
        strata, images = voters(2, neighbours), queries_to(40)
        members = strata(images)
        assert 0 < int(members.sum()) < 40
        for stratum in range(2):
            assert (vote_margin(strata, images, stratum) > 0).equal(members == stratum)


@pytest.mark.parametrize("components", [None, 6])
def test_the_margins_gradient_is_that_of_finite_differences(components: int | None, generator: torch.Generator) -> None:
    strata, images = voters(3, 3, components).double(), queries_to(5).double()
    for stratum in range(3):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(vote_margin(strata, leaf, stratum).sum(), leaf)
        assert (gradient.abs().amax((1, 2, 3)) > 0).all()
        for _ in range(2):
            direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
            ends = [vote_margin(strata, images + sign * 1e-7 * direction, stratum) for sign in (1, -1)]
            slopes = (gradient * direction).sum((1, 2, 3))
            torch.testing.assert_close(slopes, (ends[0] - ends[1]) / 2e-7, rtol=1e-5, atol=1e-7)


def test_at_a_training_image_the_gradient_is_finite() -> None:
    strata, images = voters(2, 1), grey(3)
    for stratum in range(2):
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(vote_margin(strata, leaf, stratum).sum(), leaf)
        assert gradient.isfinite().all()


# An error that only another stratum makes


@pytest.fixture(scope="module")
def blind() -> SparseTransformationLayer:
    """Two strata; the second one's filters are too weak for any code, so that it wipes out all detail."""
    strata = strata_of(1, count=2)
    seeing = dictionary_of(1, zero_mean=True)
    weak = Dictionary(1e-6 * seeing.filters, "at-most-one", 0.05)
    return SparseTransformationLayer(strata, [seeing, weak], 0.02)


def grained(count: int) -> Tensor:
    """Photographs with much detail, without black or white."""
    grain = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0)) - 0.5
    return images_of(1, count) * 0.4 + 0.3 + 0.4 * grain


def near_the_border(strata: Strata, distance: float) -> Tensor:
    """Images that the vote gives to stratum 0, each that far from one that it gives to stratum 1."""
    pool, found = grained(12), []
    members = strata(pool)
    pairs = zip((members == 0).nonzero()[:3, 0].tolist(), (members == 1).nonzero()[:3, 0].tolist(), strict=True)
    for here, there in pairs:
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            mixed = pool[here] + middle * (pool[there] - pool[here])
            low, high = (middle, high) if int(strata(mixed[None])) == 0 else (low, middle)
        towards = pool[here] - pool[there]
        found.append(pool[here] - low * towards + distance * towards / towards.norm())
    return torch.stack(found)


def test_it_breaks_by_the_vote_what_no_attack_inside_the_stratum_can(blind: SparseTransformationLayer) -> None:
    assert blind.strata is not None
    images, radius = near_the_border(blind.strata, 0.05), 0.12
    assert blind.stratum(images).tolist() == [0, 0, 0]
    inside = [blind.within(stratum) for stratum in range(2)]
    with torch.no_grad():
        long, short = (tikhonov_split(layer(images))[1].flatten(1).norm(dim=1) for layer in inside)
    # The detail of T_0 moves by at most twice the perturbation: neither the split nor the coding stretches differences.
    threshold = float(long.min()) - 3 * radius
    assert threshold > float(short.max()) + 3 * radius
    model, labels = behind(blind, Detail(threshold)), torch.zeros(3, dtype=torch.int64)
    assert decisions(model, images).equal(labels)
    held = pgd(behind(inside[0], Detail(threshold)), images, labels, budget=L2(radius), steps=10)
    assert not held.success.any()
    result = routing(model, images, labels, budget=L2(radius), steps=6)
    assert result.success.all()
    assert decisions(model, result.images).tolist() == [1, 1, 1]
    assert result.stats["stratum"].tolist() == [1, 1, 1]
    assert result.stats["moved"].tolist() == [1, 1, 1]
    assert blind.stratum(result.images).tolist() == [1, 1, 1]
    assert (L2(1.0).measure(images, result.images) <= radius * (1 + 1e-5)).all()
    assert ((result.images >= 0) & (result.images <= 1)).all()
    # The vote cannot be reached from afar, and there is nothing else to attack.
    afar = near_the_border(blind.strata, 0.05)[:1]
    failed = routing(model, afar, labels[:1], budget=L2(1e-3), steps=2)
    assert failed.success.tolist() == [False]
    assert failed.stats["moved"].tolist() == [0]


def test_where_the_own_stratum_errs_the_vote_is_left_alone(blind: SparseTransformationLayer) -> None:
    assert blind.strata is not None
    images = near_the_border(blind.strata, 0.3)
    with torch.no_grad():
        own = tikhonov_split(blind(images))[1].flatten(1).norm(dim=1)
    labels = torch.zeros(1, dtype=torch.int64)
    for i in range(3):
        model = behind(blind, Detail(float(own[i]) - 0.02))
        result = routing(model, images[i : i + 1], labels, budget=L2(0.15), steps=4)
        assert result.success.tolist() == [True]
        assert result.stats["moved"].tolist() == [0]
        assert result.stats["stratum"].tolist() == [0]


class ByBrightness(Strata):
    """Votes by the mean of the image alone."""

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1).mean(1) > 0.5).long()


def test_an_image_that_no_climb_keeps_in_its_stratum_comes_back_as_attacked(blind: SparseTransformationLayer) -> None:
    class Fleeing(nn.Module):
        """Its loss grows with the brightness where there is detail, and against it where there is none."""

        def forward(self, images: Tensor) -> Tensor:
            detail = tikhonov_split(images)[1].square().sum((1, 2, 3)).detach()
            lead = 10 - (images.flatten(1).mean(1) - 0.5) * torch.where(detail > 0.1, 1.0, -1.0)
            return torch.stack([lead, 0 * lead], 1)

    inner = blind.strata
    assert inner is not None
    strata = ByBrightness(inner.autoencoder, inner.latents, inner.labels, count=2, neighbours=1)
    layer = SparseTransformationLayer(strata, blind.dictionaries, 0.02)
    images = grained(2)
    images = images - images.mean((1, 2, 3), keepdim=True) + 0.4999
    model, labels = behind(layer, Fleeing()), torch.zeros(2, dtype=torch.int64)
    result = routing(model, images, labels, budget=L2(0.1), steps=1, pull=1e-3)
    assert not result.success.any()
    assert (L2(1.0).measure(images, result.images) > 0.05).all()
    assert result.stats["stratum"].equal(layer.stratum(result.images))
    assert result.stats["moved"].tolist() == [1, 1]


# What all attacks have in common


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_result_is_in_ball_and_box_and_what_it_says_is_true(budget: Budget) -> None:
    layer, images = stratified(1), images_of(1, 5)
    model = behind(layer, Pixels())
    labels = decisions(model, images)
    costs = 0

    def count(_: nn.Module, inputs: tuple[Tensor], __: Tensor) -> None:
        nonlocal costs
        costs += len(inputs[0]) * (2 if inputs[0].requires_grad else 1)

    model.classifier.register_forward_hook(count)
    seen: list[tuple[int, int]] = []
    result = routing(
        model, images, labels, budget=budget, steps=2, loss="margin", on_step=lambda done, of: seen.append((done, of))
    )
    assert costs == int(result.queries.sum())
    assert seen == [(done + 1, 6) for done in range(6)]
    assert (budget.measure(images, result.images) <= budget.size * (1 + 1e-4)).all()
    assert ((result.images >= 0) & (result.images <= 1)).all()
    assert result.success.equal(decisions(model, result.images) != labels)
    members = layer.stratum(result.images)
    assert result.stats["stratum"].equal(members)
    assert result.stats["moved"].equal((members != layer.stratum(images)).long())
    assert (result.queries[~result.success] == 6 * (2 * 2 + 1) + 1).all()
    for i in (4,):
        alone = routing(model, images[i : i + 1], labels[i : i + 1], budget=budget, steps=2, loss="margin")
        torch.testing.assert_close(alone.images[0], result.images[i], rtol=0, atol=1e-4)
        assert (bool(alone.success), int(alone.queries)) == (bool(result.success[i]), int(result.queries[i]))


def test_behind_eight_bits_the_vote_is_that_of_the_rounded_image(blind: SparseTransformationLayer) -> None:
    class ByOnePixel(Strata):
        """Votes for stratum 1 where a pixel is darker than 127.75 of 255."""

        def forward(self, images: Tensor) -> Tensor:
            return (images[:, 0, 3, 3] < 127.75 / 255).long()

    inner = blind.strata
    assert inner is not None
    strata = ByOnePixel(inner.autoencoder, inner.latents, inner.labels, count=2, neighbours=1)
    layer = SparseTransformationLayer(strata, blind.dictionaries, 0.02)
    images = (grained(2) * 128).round() / 255  # half as bright, on whole levels
    images[:, 0, 3, 3] = 128 / 255  # far brighter than its neighbours: less detail is a darker pixel
    labels, queries = torch.zeros(2, dtype=torch.int64), []
    with torch.no_grad():
        threshold = 0.8 * float(tikhonov_split(layer(images))[1].flatten(1).norm(dim=1).min())
    for eight_bit in (False, True):
        model = Defended(layer, Detail(threshold), eight_bit=eight_bit).eval().with_adjoint(Identity())
        assert decisions(model, images).equal(labels)
        result = routing(model, images, labels, budget=Linf(0.4 / 255), steps=2)
        assert result.success.equal(decisions(model, result.images) != labels)
        assert result.success.tolist() == [not eight_bit] * 2
        assert result.stats["moved"].tolist() == [int(not eight_bit)] * 2
        queries.append(result.queries)
    assert queries[1].tolist() == [4 * (2 * 2 + 1) + 1] * 2  # nothing that looked like a success ended it
    assert (queries[0] < queries[1]).all()


def test_no_budget_no_change_and_an_empty_batch() -> None:
    model, images = behind(stratified(1), Pixels()), images_of(1, 3)
    labels = decisions(model, images)
    labels[1] = (labels[1] + 1) % 4
    result = routing(model, images, labels, budget=Linf(0.0), steps=1)
    assert result.images.equal(images)
    assert result.success.tolist() == [False, True, False]
    assert result.stats["moved"].tolist() == [0, 0, 0]
    empty = routing(model, images[:0], labels[:0], budget=Linf(0.1), steps=1)
    assert (len(empty.images), len(empty.stats["stratum"]), len(empty.stats["moved"])) == (0, 0, 0)


def test_the_layer_is_left_as_it_was() -> None:
    layer = stratified(1)
    model, images = behind(layer, Pixels()), images_of(1, 3)
    model.classifier.train()
    before, tensors = layer(images), {name: value.clone() for name, value in layer.state_dict().items()}
    routing(model, images, torch.zeros(3, dtype=torch.int64), budget=L2(0.2), steps=2)
    assert model.classifier.training
    assert all(value.equal(tensors[name]) for name, value in layer.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(layer(images), before, rtol=0, atol=0)


def test_a_later_climb_names_images_by_their_place_in_the_callers_batch() -> None:
    class Breaks(nn.Module):
        """Wrong of dark images, right of bright ones; not finite once it is shown a single one again."""

        def __init__(self) -> None:
            super().__init__()
            self.looks = 0

        def forward(self, images: Tensor) -> Tensor:
            self.looks += len(images) == 1
            lead = 1e3 * (images.flatten(1).mean(1) - 0.5)
            return torch.stack([lead, -lead if self.looks < 2 else lead + torch.nan], 1)

    images = images_of(1, 6) * 0.1
    images[4] += 0.8
    labels = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(InputError, match="image 4 has logits that are not finite"):
        routing(behind(stratified(1), Breaks()), images, labels, budget=Linf(0.01), steps=1)


def test_what_it_cannot_be_aimed_at_is_refused() -> None:
    images, labels = images_of(1, 2), torch.zeros(2, dtype=torch.int64)
    good = behind(stratified(1), Pixels())

    def refused(pattern: str, model: Defended = good, **options: Any) -> None:
        with pytest.raises(UsageError, match=pattern):
            routing(model, images, labels, budget=L2(0.1), **options)

    refused("a layer without strata has no vote to attack; use pgd", behind(universal(1), Pixels()))
    refused("routing attack is aimed at a Sparse Transformation Layer", Defended(EightBit(), Pixels()))
    refused("no gradient is named", Defended(stratified(1), Pixels()).eval())
    refused("steps is 0", steps=0)
    for pull in (0.0, -1.0, math.nan, math.inf):
        refused("pull is .*; give a finite number above 0", pull=pull)
    refused("unknown loss 'cross entropy'; did you mean 'cross-entropy'", loss="cross entropy")
