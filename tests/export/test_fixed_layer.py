"""The fixed layer takes the ADMM's steps, comes to the layer's T(x), and refuses what it cannot do."""

from itertools import pairwise

import pytest
import torch

from layers import dictionary_of, images_of, stratified, universal
from quasinat.errors import InputError, UsageError
from quasinat.export import FixedState, fixed
from quasinat.export.fixed_admm import PENALTY, RELAXATION
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import ADMM, CoordinateDescent, SparseCodingProblem
from quasinat.sparse_coding.convolution import convolve
from quasinat.strata import split_bands

SIZE = 20
EXACT = CoordinateDescent(tolerance=1e-7)


def test_the_steps_are_those_of_the_admm() -> None:
    layer, images = universal().double(), images_of(3, 4).double()
    coded, filters = split_bands(images, "tikhonov")[1], layer.filters[0]
    solver = ADMM(penalty=PENALTY * layer.sparsity, relaxation=RELAXATION)
    prepared = solver.prepare(SparseCodingProblem(coded, filters, layer.sparsity))
    module = fixed(layer, 7, image_size=SIZE)
    state = module.solver.cold(coded, torch.zeros(4, dtype=torch.int64)).unflatten(2, (SIZE, SIZE))
    for _ in range(7):
        before, state = state, solver.step(prepared, state)
    x = solver.sparse(prepared, before) + (state - before) / RELAXATION
    found, ended = module.next(images)
    torch.testing.assert_close(ended.maps, state)
    truth = (images - coded + convolve(filters, x)).clamp(0, 1)
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize(("split", "sparsity"), [("tikhonov", 0.05), ("none", 0.3), ("mid-grey", 0.3)])
@pytest.mark.parametrize("normalise", ["clip", "max"])
def test_a_mixed_batch_comes_to_the_layer(split: str, sparsity: float, normalise: str) -> None:
    layer = stratified(split=split, sparsity=sparsity, normalise=normalise, solver=EXACT)
    images = images_of(3, 3)
    assert len(layer.stratum(images).unique()) == 3
    truth = layer.project(images)
    errors = [float((fixed(layer, steps, image_size=SIZE)(images) - truth).abs().max()) for steps in (5, 40, 160, 640)]
    assert all(after < before or after < 1e-5 for before, after in pairwise(errors))
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-4


def test_what_an_image_gets_does_not_depend_on_the_batch() -> None:
    module, images = fixed(stratified(), 10, image_size=SIZE), images_of(3, 9)
    together = module(images)
    for index in range(9):
        torch.testing.assert_close(module(images[index : index + 1])[0], together[index], atol=1e-6, rtol=0)
    assert module(images[:0]).shape == (0, 3, SIZE, SIZE)


def test_an_oblong_image_of_one_channel() -> None:
    layer = SparseTransformationLayer(None, [dictionary_of(1)], 0.05, solver=EXACT)
    images = images_of(1, 3, 17, 24)
    error = (fixed(layer, 320, image_size=(17, 24))(images) - layer.project(images)).abs().max()
    assert error < 1e-3


def test_a_stream_goes_on_where_it_ended() -> None:
    layer, images = stratified(), images_of(3, 5)
    short, long = fixed(layer, 15, image_size=SIZE), fixed(layer, 30, image_size=SIZE)
    _, ended = short.next(images)
    again, _ = short.next(images, ended)
    torch.testing.assert_close(again, long(images), atol=1e-5, rtol=0)
    truth = layer.with_solver(EXACT).project(images)
    assert (again - truth).abs().mean() < 0.7 * (short(images) - truth).abs().mean()


def test_a_stream_of_another_stratum_starts_afresh() -> None:
    module, images = fixed(stratified(), 5, image_size=SIZE), images_of(3, 4)
    cold, ended = module.next(images)
    other = FixedState(ended.maps, (ended.members + torch.tensor([0, 1, 0, 1])) % 3)
    warm, _ = module.next(images, other)
    torch.testing.assert_close(warm[[1, 3]], cold[[1, 3]])
    assert (warm[[0, 2]] - cold[[0, 2]]).abs().max() > 1e-4


def test_nothing_to_code_with_a_large_sparsity() -> None:
    layer = universal(sparsity=100.0)
    images = images_of(3, 2)
    torch.testing.assert_close(fixed(layer, 200, image_size=SIZE)(images), layer.project(images), atol=1e-3, rtol=0)


def test_it_stays_in_eval_mode() -> None:
    module = fixed(stratified(), 1, image_size=SIZE)
    assert not any(part.training for part in module.train().modules())


def test_it_has_no_gradient() -> None:
    with pytest.raises(UsageError, match="attack the layer"):
        fixed(universal(), 1, image_size=SIZE)(images_of(3, 1).requires_grad_())


@pytest.mark.parametrize(
    ("options", "words"), [({"steps": 0}, "0 steps"), ({"steps": 1, "image_size": 4}, "smaller than the filters")]
)
def test_what_cannot_be_fixed_is_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        fixed(universal(), **options)


def test_a_layer_that_refines_is_refused() -> None:
    with pytest.raises(UsageError, match=r"refine=2 .* make the layer with refine=0"):
        fixed(universal(refine=2), image_size=SIZE)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="images of 3 x 21 x 20, not 3 x 20 x 20"):
        fixed(universal(), 1, image_size=SIZE)(images_of(3, 1, 21, 20))
