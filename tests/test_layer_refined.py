"""Filters refined for the input: each image for itself or a stratum's together, never above Eq. (2) as it was."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from layers import dictionary_of, images_of, stratified, universal
from quasinat.layer import RefineOver, SparseTransformationLayer
from quasinat.sparse_coding import (
    Adjoint,
    Constraint,
    CoordinateDescent,
    Dictionary,
    Implicit,
    SparseCodingProblem,
    Unrolled,
    project_filters,
    solve,
)
from quasinat.strata import split_bands

SOLVER = CoordinateDescent(tolerance=1e-4, max_steps=1000)


def refined_for(image: Tensor, dictionary: Dictionary, turns: int) -> Dictionary:
    """The dictionary whose plain layer should give what the refining one gives for this image alone."""
    layer = SparseTransformationLayer(None, [dictionary], 0.05, refine=turns, solver=SOLVER)
    filters = layer._refined(split_bands(image[None], "tikhonov")[1], dictionary.filters, 0)
    return Dictionary(filters, dictionary.constraint, 0.05)


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("make", [universal, stratified])
def test_no_refinement_is_the_plain_layer(make: Callable[..., SparseTransformationLayer], over: RefineOver) -> None:
    images = images_of(3, 4)
    assert make(refine=0, refine_over=over)(images).equal(make()(images))
    assert not make(refine=1, refine_over=over)(images).allclose(make()(images), atol=1e-3)


@pytest.mark.parametrize("make", [universal, stratified])
def test_refined_for_itself_an_image_gets_what_it_gets_alone(make: Callable[..., SparseTransformationLayer]) -> None:
    layer, images = make(refine=2, solver=SOLVER), images_of(3, 5)
    together = layer(images)
    for index, member in enumerate(layer.stratum(images).tolist()):
        own = refined_for(images[index], layer.dictionaries[member], 2)
        plain = SparseTransformationLayer(None, [own], 0.05, solver=SOLVER)
        for expected in (layer(images[index : index + 1])[0], plain(images[index : index + 1])[0]):
            torch.testing.assert_close(together[index], expected, rtol=0, atol=1e-5)
    assert layer.filters.equal(make().filters)  # the layer's own stay


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("constraint", ["joint", "per-channel", "at-most-one"])
def test_refined_filters_fit_better_and_keep_their_constraint(constraint: Constraint, zero_mean: bool) -> None:
    dictionary = dictionary_of(3, constraint=constraint, zero_mean=zero_mean)
    (image,) = images_of(3, 1)
    coded = split_bands(image[None], "tikhonov")[1]
    objectives = []
    for turns in range(4):
        filters = refined_for(image, dictionary, turns).filters
        solution = solve(SparseCodingProblem(coded, filters, 0.05), SOLVER)
        objectives.append(float(solution.objective))
        on_constraint = project_filters(filters, constraint, zero_mean=zero_mean)
        torch.testing.assert_close(filters, on_constraint, rtol=0, atol=1e-6)
        if zero_mean:
            assert filters.mean((2, 3)).abs().max() < 1e-6
    assert all(after < before for before, after in pairwise(objectives))
    assert objectives[1] < 0.9 * objectives[0]


def test_refined_over_the_batch_the_images_of_a_stratum_see_each_other() -> None:
    layer, images = stratified(refine=1, refine_over="batch"), images_of(3, 9)
    members, before = layer.stratum(images), layer(images)
    other = images_of(3, 12)[9:10]  # of stratum 0, as the image whose place it takes
    changed = torch.cat([other, images[1:]])
    assert layer.stratum(changed).equal(members)
    differences = (layer(changed) - before).abs().amax((1, 2, 3))
    assert (differences[members != 0] == 0).all()
    assert (differences[members == 0] > 1e-4).all()
    assert members.tolist() == [0, 1, 2] * 3
    alone = stratified(refine=1)
    torch.testing.assert_close(layer(images[:3]), alone(images[:3]), rtol=0, atol=1e-6)  # one image a stratum
    assert not before[:3].allclose(alone(images[:3]), atol=1e-4)


@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled()])
def test_a_gradient_holds_refined_filters_fixed(adjoint: Adjoint) -> None:
    images = images_of(3, 1) * 0.8 + 0.1
    layer = universal(refine=2, solver=SOLVER).with_adjoint(adjoint)
    own = refined_for(images[0], dictionary_of(3), 2)
    plain = SparseTransformationLayer(None, [own], 0.05, solver=SOLVER).with_adjoint(adjoint)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    gradients = []
    for each in (layer, plain, universal(solver=SOLVER).with_adjoint(adjoint)):
        leaf = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad((each(leaf) * weights).sum(), leaf)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-5)
    assert gradients[0].isfinite().all()
    assert (gradients[0] - gradients[2]).abs().max() > 0.01
