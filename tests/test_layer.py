"""The layer: constants pass, images do not see each other, filters are refined as asked, gradients are named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from layers import dictionary_of, images_of, strata_of, stratified, universal
from quasinat.batches import project
from quasinat.errors import InputError, UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.layer_options import Clipping, Normalise
from quasinat.sparse_coding import (
    Adjoint,
    CoordinateDescent,
    Identity,
    Implicit,
    SparseCodingProblem,
    Unrolled,
    solve,
)
from quasinat.strata import Split, split_bands
from sparse_coding.unchecked import unchecked


@pytest.mark.parametrize("level", [0.0, 0.25, 0.7, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_image_is_its_own_projection(channels: int, level: float) -> None:
    images = torch.full((2, channels, 12, 15), level)
    torch.testing.assert_close(universal(channels)(images), images, rtol=0, atol=2e-6)


@pytest.mark.parametrize("normalise", ["clip", "max"])
@pytest.mark.parametrize("split", ["tikhonov", "none", "mid-grey"])
def test_it_is_the_split_the_code_and_the_clip(split: Split, normalise: Normalise) -> None:
    layer = universal(split=split, normalise=normalise)
    images = images_of(3, 2) * torch.tensor([0.5, 1.2]).view(2, 1, 1, 1)
    images = images.clamp(0, 1)
    passed, coded = split_bands(images, split)
    solution = solve(SparseCodingProblem(coded, layer.filters[0], 0.05), layer.solver)
    expected = passed + solution.reconstruction
    if normalise == "max":
        assert float(expected[0].max()) < 0.7
        expected = expected / expected.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(layer(images), expected.clamp(0, 1), rtol=0, atol=1e-5)
    assert (expected - images).abs().max() > 0.01


def test_normalised_by_the_maximum_an_image_turns_brighter() -> None:
    layer = universal(normalise="max")
    dim = images_of(3, 2) * 0.4
    torch.testing.assert_close(layer(dim).amax((1, 2, 3)), torch.ones(2), rtol=0, atol=1e-6)
    assert universal()(dim).max() < 0.6
    torch.testing.assert_close(layer(torch.full((1, 3, 9, 9), 0.25)), torch.ones(1, 3, 9, 9), rtol=0, atol=1e-5)
    black = layer(torch.zeros(1, 3, 9, 9))
    assert black.isfinite().all()
    assert black.max() < 1e-3


@pytest.mark.parametrize("make", [universal, stratified])
def test_an_image_gets_what_it_gets_alone(make: Callable[[], SparseTransformationLayer]) -> None:
    layer, images = make(), images_of(3, 30)
    together = layer(images)
    assert together.shape == images.shape
    assert together.min() >= 0
    assert together.max() <= 1
    for index in (0, 7, 29):
        torch.testing.assert_close(layer(images[index : index + 1])[0], together[index], rtol=0, atol=1e-5)
    torch.testing.assert_close(layer(images.flip(0)), together.flip(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(project(layer, images, batch_size=7), together, rtol=0, atol=1e-5)


def test_each_stratum_has_its_own_dictionary() -> None:
    layer, images = stratified(), images_of(3, 12)
    members = layer.stratum(images)
    assert members.tolist() == [i % 3 for i in range(12)]  # the training images are their own nearest neighbours
    for stratum in range(3):
        alone = SparseTransformationLayer(None, [dictionary_of(3, stratum)], 0.05)
        own = images[members == stratum]
        torch.testing.assert_close(layer(images)[members == stratum], alone(own), rtol=0, atol=1e-5)
    assert universal().stratum(images).tolist() == [0] * 12


@pytest.mark.parametrize("shape", [(33, 47), (5, 64), (51, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_of_any_size(channels: int, shape: tuple[int, int]) -> None:
    images = images_of(channels, 2, *shape)
    for layer in (universal(channels), stratified(channels)):
        projected = layer(images)
        assert projected.shape == images.shape
        assert projected.isfinite().all()
        assert (projected - images).square().mean() < 0.01


def test_threads_make_no_difference() -> None:
    layer, images = stratified(), images_of(3, 64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = layer(images)
        torch.set_num_threads(2)
        two = layer(images)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [universal, stratified])
def test_an_empty_batch_and_inputs_left_alone(make: Callable[[], SparseTransformationLayer]) -> None:
    layer, images = make(), images_of(3, 3)
    kept = images.clone()
    layer(images)
    assert images.equal(kept)
    assert layer(images[:0]).shape == (0, 3, 20, 20)
    assert project(layer, images[:0]).shape == (0, 3, 20, 20)


def test_progress_is_reported() -> None:
    seen: list[int] = []
    project(universal(), images_of(3, 5), batch_size=2, on_batch=seen.append)
    assert seen == [2, 4, 5]


def test_the_sparser_the_further() -> None:
    layer, images = universal(), images_of(3, 3)
    distances = [float((layer.with_sparsity(value)(images) - images).square().sum()) for value in (0.01, 0.05, 0.2)]
    assert distances == sorted(distances)
    assert layer.sparsity == 0.05
    assert layer.with_sparsity(0.3).filters is layer.filters


# Gradients


def test_a_gradient_must_be_named() -> None:
    layer, images = universal(), images_of(3, 2).requires_grad_()
    with pytest.raises(UsageError, match=r"no gradient is named .*; name one, as in .*Identity"):
        layer(images)
    with torch.no_grad():
        expected = layer(images)
    named = layer.with_adjoint(Identity())
    assert layer.adjoint is None
    assert named.filters is layer.filters
    output = named(images)
    assert output.detach().equal(expected)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((output * weights).sum(), images)
    assert gradient.equal(weights)


@pytest.mark.parametrize(("split", "sparsity"), [("tikhonov", 0.05), ("none", 0.2), ("mid-grey", 0.2)])
@pytest.mark.parametrize("make", [universal, stratified])
def test_the_implicit_gradient_is_that_of_finite_differences(
    make: Callable[..., SparseTransformationLayer], split: Split, sparsity: float, generator: torch.Generator
) -> None:
    layer = make(split=split, sparsity=sparsity).double()
    layer.solver = CoordinateDescent(tolerance=1e-12, max_steps=5000)
    images = images_of(3, 4).double() * 0.8 + 0.1
    if layer.strata is not None:  # whose network is float32 in use; the stratum is held fixed anyway
        members = layer.stratum(images)
        layer.stratum = lambda _: members  # type: ignore[method-assign]
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    leaf = images.clone().requires_grad_()
    exact = layer.with_adjoint(Implicit(forward_tolerance=1e-12, tolerance=1e-12))
    (gradient,) = torch.autograd.grad((exact(leaf) * weights).sum(), leaf)
    for _ in range(3):
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        ends = [(layer(images + sign * 1e-7 * direction) * weights).sum() for sign in (1, -1)]
        expected = float(ends[0] - ends[1]) / 2e-7
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_the_other_gradients_differ_from_the_true_one_as_they_should() -> None:
    layer, images = stratified(), images_of(3, 6) * 0.8 + 0.1
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))

    def gradient(adjoint: Adjoint, rows: slice = slice(None)) -> Tensor:
        leaf = images[rows].clone().requires_grad_()
        output = layer.with_adjoint(adjoint)(leaf)
        torch.testing.assert_close(output.detach(), layer(images[rows]), rtol=0, atol=0.02)
        return torch.autograd.grad((output * weights[rows]).sum(), leaf)[0]

    true = gradient(Implicit())
    cosines = [
        float(torch.cosine_similarity(gradient(a).flatten(), true.flatten(), 0)) for a in (Identity(), Unrolled())
    ]
    assert cosines[0] < cosines[1] - 0.05
    assert cosines[1] > 0.9
    torch.testing.assert_close(gradient(Implicit(), slice(2, 3))[0], true[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("adjoint", [Implicit(forward_tolerance=1e-6, tolerance=1e-6), Unrolled(30)])
def test_the_two_derivatives_of_the_clip_differ_by_the_clipped_pixels(adjoint: Adjoint) -> None:
    layer = universal(split="none", sparsity=0.2)
    images = images_of(3, 2).clone()
    images[0, :, 4:9] = 1.0  # beside a dark edge, so that T(x) overshoots
    images[0, :, 9:14] = 0.0
    images[1] = images[1] * 0.4 + 0.3
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))

    def gradient(clipping: Clipping, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        leaf = images.clone().requires_grad_()
        output = layer.with_adjoint(adjoint, clipping=clipping)(leaf)
        return output.detach(), torch.autograd.grad((output * cotangent).sum(), leaf)[0]

    clipped, exact = gradient("exact", weights)
    same, through = gradient("straight-through", weights)
    assert same.equal(clipped)
    free = (clipped > 0) & (clipped < 1)
    assert 0.02 < float((~free[0]).double().mean()) < 0.9
    assert bool(free[1].all())
    torch.testing.assert_close(exact, gradient("straight-through", weights * free)[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(exact[1], through[1], rtol=0, atol=1e-6)
    assert (exact[0] - through[0]).norm() > 0.05 * through[0].norm()
    assert gradient("exact", weights * ~free)[1].abs().max() == 0
    assert gradient("straight-through", weights * ~free)[1].abs().max() > 0.01


def test_an_unknown_derivative_of_the_clip_is_refused() -> None:
    with unchecked(), pytest.raises(UsageError, match="unknown clipping 'exakt'; did you mean 'exact'"):
        universal().with_adjoint(Identity(), clipping="exakt")
    assert universal().with_adjoint(Identity()).clipping == "exact"


# One stratum's dictionary for all


@pytest.mark.parametrize("options", [{}, {"split": "none"}, {"normalise": "max"}, {"refine": 1}])
def test_within_a_stratum_it_is_that_stratums_layer_for_every_image(options: dict[str, Any]) -> None:
    layer, images = stratified(**options), images_of(3, 3)
    members, together = layer.stratum(images), layer(images)
    for stratum in range(3):
        alone = layer.within(stratum)
        projected, own = alone(images), members == stratum
        assert 0 < int(own.sum()) < len(images)
        torch.testing.assert_close(projected[own], together[own], rtol=0, atol=1e-5)
        assert (projected[~own] - together[~own]).abs().amax((1, 2, 3)).min() > 1e-3
        assert alone.stratum(images).tolist() == [0] * 3
        assert alone.strata is None
        assert alone.dictionaries[0].filters.equal(layer.filters[stratum])
        assert alone.learned == [layer.learned[stratum]]


def test_within_keeps_the_gradient_and_leaves_the_layer_as_it_was() -> None:
    layer, images = stratified(split="none", sparsity=0.2), images_of(3, 6) * 0.8 + 0.1
    assert layer.within(1).adjoint is None
    named = layer.with_adjoint(Implicit(), clipping="straight-through").eval()
    before, settings = named(images), named.settings()
    alone = named.within(2)
    assert (alone.adjoint, alone.clipping, alone.solver) == (named.adjoint, "straight-through", named.solver)
    assert not alone.training
    assert layer.within(2).training
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    gradients = []
    for module in (alone, named):
        leaf = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad((module(leaf) * weights).sum(), leaf)[0])
    own = layer.stratum(images) == 2
    torch.testing.assert_close(gradients[0][own], gradients[1][own], rtol=0, atol=1e-5)
    alone.filters.zero_()
    alone.provenance["new"] = True
    assert named(images).equal(before)
    assert named.settings() == settings
    assert named.strata is not None
    assert "new" not in named.provenance
    assert len(named.filters) == 3


def test_there_is_no_stratum_beyond_the_last() -> None:
    for stratum in (3, -1):
        with pytest.raises(UsageError, match=rf"the layer has no stratum {stratum}; name one from 0 to 2"):
            stratified().within(stratum)
    with pytest.raises(UsageError, match="no stratum 1; name one from 0 to 0"):
        universal().within(1)
    images = images_of(3, 2)
    torch.testing.assert_close(universal().within(0)(images), universal()(images), rtol=0, atol=0)


# What is refused


def test_unusable_images_are_refused_with_a_remedy() -> None:
    images = images_of(3, 20)
    for layer in (universal(), stratified()):
        with unchecked(), pytest.raises(InputError, match="images have 1 channels and the filters 3; convert"):
            layer(images[:, :1])
        with pytest.raises(InputError, match="4 x 20 pixels are smaller than the filters"):
            layer(images[:, :, :4])
        with pytest.raises(InputError, match=r"float64 and filters of torch\.float32; convert"):
            layer(images.double())
        broken = images.clone()
        broken[17, 1, 2, 3] = torch.nan
        with pytest.raises(InputError, match="image 17 holds NaN or infinity; leave it out or repair it"):
            layer(broken)


def test_dictionaries_must_fit_the_strata() -> None:
    with pytest.raises(UsageError, match="2 dictionaries for 3 strata; give one dictionary a stratum"):
        SparseTransformationLayer(strata_of(3), [dictionary_of(3), dictionary_of(3)])
    with pytest.raises(UsageError, match="2 dictionaries for 1 strata"):
        SparseTransformationLayer(None, [dictionary_of(3), dictionary_of(3)])
    with pytest.raises(UsageError, match="differ in K, C or S; learn them with the same"):
        SparseTransformationLayer(strata_of(3), [dictionary_of(3), dictionary_of(3), dictionary_of(3, size=4)])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("split", "tikonov", "unknown split 'tikonov'; did you mean 'tikhonov'"),
        ("normalise", "clap", "unknown normalise 'clap'; did you mean 'clip'"),
        ("refine_over", "images", "unknown refine_over 'images'; did you mean 'image'"),
        ("refine", -1, "refine=-1 filter updates; ask for none or more"),
    ],
)
def test_impossible_options_are_refused_at_once(option: str, value: object, message: str) -> None:
    with unchecked(), pytest.raises(UsageError, match=message):
        universal(**{option: value})


def test_images_outside_the_range_are_named() -> None:
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    images[1] *= 255
    with pytest.raises(InputError, match=r"image 1 has values from .* divide 8-bit images by 255"):
        universal(channels=1)(images)
