"""The layer, the solvers and the attacks at the edges of what they take: what comes out is stated for each.

The table in docs/reliability.md is this file's: a finite result, or a refusal of one line that names the image.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hardening.refusals import answer, is_clear
from layers import images_of, stratified, universal
from quasinat.attacks import ATTACKS, Linf
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import ADMM, Auto, Identity, SparseCodingProblem, solve
from quasinat.sparse_coding.coordinate_descent import available
from quasinat.sparse_coding.solution import Result
from quasinat.tiling import project_in_tiles

SIDE = 20
LAYERS: dict[str, SparseTransformationLayer] = {
    "universal": universal(1),
    "stratified": stratified(1),
    "refined": universal(1, refine=1),
    "divided by the largest": universal(1, normalise="max"),
    "without a split": universal(1, split="none"),
}
SOLVERS = ["auto", "admm", *([] if available() else ["coordinate-descent"])]
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def flat(level: float) -> Tensor:
    return torch.full((1, 1, SIDE, SIDE), float(level))


def one_pixel(level: float = 1.0, ground: float = 0.0) -> Tensor:
    image = flat(ground)
    image[0, 0, 7, 11] = level
    return image


ODD: dict[str, Tensor] = {
    "black": flat(0),
    "grey": flat(0.5),
    "saturated": flat(1),
    "subnormal": flat(1e-40),
    "minus zero": -flat(0),
    "one white pixel": one_pixel(),
    "one black pixel": one_pixel(0, 1),
    "checkers": ((torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2).float()[None, None],
    "halves": torch.cat([flat(0)[..., :10], flat(1)[..., :10]], 3),
}
FLAT = ["black", "grey", "saturated", "subnormal", "minus zero"]
UNREADABLE: dict[str, Tensor] = {
    "all NaN": flat(math.nan),
    "one NaN": one_pixel(math.nan),
    "infinite": flat(math.inf),
    "one infinity": one_pixel(-math.inf),
}


@every_layer
@pytest.mark.parametrize("name", ODD)
def test_odd_images_have_a_finite_projection(layer: SparseTransformationLayer, name: str) -> None:
    made = layer(ODD[name])
    assert made.shape == (1, 1, SIDE, SIDE)
    assert bool(((made >= 0) & (made <= 1)).all())


@pytest.mark.parametrize("name", FLAT)
def test_a_flat_image_is_its_own_projection_where_low_frequencies_pass(name: str) -> None:
    for layer in (LAYERS["universal"], LAYERS["stratified"]):
        assert torch.allclose(layer(ODD[name]), ODD[name], rtol=0, atol=1e-6)


@every_layer
@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_image_is_named(layer: SparseTransformationLayer, name: str) -> None:
    batch = torch.cat([ODD["grey"], ODD["checkers"], UNREADABLE[name]])
    for project in (layer, lambda images: project_in_tiles(layer, images, tile=8, margin=6)):
        if project is not layer and (layer.refine or layer.normalise == "max"):
            continue
        found = answer(lambda project=project: project(batch))  # type: ignore[misc]
        assert isinstance(found, InputError)
        assert is_clear(found)
        assert str(found) == "image 2 holds NaN or infinity; leave it out or repair it"


@every_layer
@pytest.mark.parametrize("level", [-0.1, 1.1, 255.0])
def test_an_image_out_of_range_is_named(layer: SparseTransformationLayer, level: float) -> None:
    with pytest.raises(InputError, match=r"image 1 has values from .*, not in \[0, 1\]; divide 8-bit images by 255"):
        layer(torch.cat([flat(0.5), one_pixel(level)]))


@every_layer
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 4)])
def test_an_image_below_the_filters_is_refused(layer: SparseTransformationLayer, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"images of {size[0]} x {size[1]} pixels are smaller than the filters"):
        layer(torch.rand(1, 1, *size))


def test_an_image_as_small_as_the_filters_is_projected() -> None:
    for layer in LAYERS.values():
        assert bool(layer(torch.rand(2, 1, 5, 5)).isfinite().all())


@every_layer
def test_no_image_is_no_error(layer: SparseTransformationLayer) -> None:
    assert layer(torch.empty(0, 1, SIDE, SIDE)).shape == (0, 1, SIDE, SIDE)


@every_solver
def test_no_image_has_a_solution_too(solver: str) -> None:
    solution = solve(SparseCodingProblem(torch.empty(0, 1, SIDE, SIDE), LAYERS["universal"].filters[0], 0.1), solver)
    assert solution.codes.shape == (0, 8, SIDE, SIDE)
    assert solution.failures == {}
    assert math.isnan(solution.density)


@every_solver
@pytest.mark.parametrize("sparsity", [math.inf, math.nan, -0.1])
def test_a_lambda_that_is_none_is_refused(solver: str, sparsity: float) -> None:
    with pytest.raises(UsageError, match=r"sparsity .* is not a finite number >= 0; the paper uses 0\.2"):
        solve(SparseCodingProblem(images_of(1, 1), LAYERS["universal"].filters[0], sparsity), solver)
    with pytest.raises(UsageError, match="is not a finite number"):
        LAYERS["universal"].with_sparsity(sparsity)(images_of(1, 1))


@pytest.mark.parametrize("solver", ["auto", "admm"])
def test_with_lambda_zero_the_image_is_coded_as_it_is(solver: str) -> None:
    images = images_of(1, 2)
    solution = solve(SparseCodingProblem(images, LAYERS["universal"].filters[0], 0.0), solver)
    assert solution.failures == {}
    assert float((solution.reconstruction - images).abs().max()) < 1e-3


@pytest.mark.skipif(available() is not None, reason="no compiled kernel")
def test_coordinate_descent_refuses_lambda_zero() -> None:
    with pytest.raises(UsageError, match="lambda is zero, so that the codes are not sparse; use ADMM"):
        solve(SparseCodingProblem(images_of(1, 1), LAYERS["universal"].filters[0], 0.0), "coordinate-descent")


@every_solver
@pytest.mark.parametrize("sparsity", [1e3, 1e30, 3e38])
def test_with_a_huge_lambda_nothing_is_coded(solver: str, sparsity: float) -> None:
    images = images_of(1, 2)
    solution = solve(SparseCodingProblem(images, LAYERS["universal"].filters[0], sparsity), solver)
    assert solution.failures == {}
    assert int((solution.codes != 0).sum()) == 0
    assert torch.allclose(solution.objective, images.square().flatten(1).sum(1) / 2)


@every_solver
@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e17])
def test_the_scale_of_an_image_scales_its_solution(solver: str, scale: float) -> None:
    images, filters = images_of(1, 1), LAYERS["universal"].filters[0]
    one = solve(SparseCodingProblem(images, filters, 0.1), solver)
    other = solve(SparseCodingProblem(scale * images, filters, 0.1 * scale), solver)
    assert bool(other.reconstruction.isfinite().all())
    if solver == "admm":  # whose penalty is for images in [0, 1]: it ends at its limit, and says so
        assert int(other.result) == Result.max_steps_reached
    else:
        assert torch.allclose(other.reconstruction / scale, one.reconstruction, rtol=0, atol=2e-2)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_another_type_than_the_layers_are_refused(kind: torch.dtype) -> None:
    with pytest.raises(InputError, match=rf"images of {kind} and filters of torch\.float32; convert one of them"):
        LAYERS["universal"](images_of(1, 1).to(kind))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_layer_in_half_precision_is_refused(kind: torch.dtype) -> None:
    with pytest.raises(InputError, match=f"images of {kind} are not coded; convert them and the filters to float32"):
        universal(1).to(kind)(images_of(1, 1).to(kind))


@pytest.mark.parametrize("make", [universal, stratified])
def test_a_layer_in_double_precision_gives_the_same(make: Any) -> None:
    images = images_of(1, 3)
    layer = make(1, solver=ADMM(tolerance=1e-4))
    single = layer(images)
    double = layer.double()(images.double())
    assert double.dtype == torch.float64
    assert float((double - single.double()).abs().max()) < 1e-4


@every_layer
def test_how_images_lie_in_memory_makes_no_difference(layer: SparseTransformationLayer) -> None:
    images = images_of(1, 3)
    expected = layer(images)
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)
    ways = {
        "channels last": images.to(memory_format=torch.channels_last),
        "turned": turned,
        "every other column": images.repeat_interleave(2, 3)[..., ::2],
        "of a larger batch": torch.cat([flat(0), images, flat(1)])[1:-1],
        "offset": torch.cat([torch.zeros(1), images.flatten()])[1:].view(images.shape),
    }
    assert not turned.is_contiguous()
    for name, way in ways.items():
        assert torch.allclose(layer(way), expected, rtol=0, atol=1e-6), name
    same = layer(images[:1].expand(4, -1, -1, -1))
    assert torch.allclose(same, expected[:1].expand(4, -1, -1, -1), rtol=0, atol=1e-6)


class Slope(nn.Module):
    """Two classes, told apart by the mean of an image."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(1)
        return torch.stack([mean, 1 - mean], 1)


CHEAP: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "bim": {"steps": 3},
    "pgd": {"steps": 3, "restarts": 1},
    "deepfool": {},
    "random-noise": {},
    "square": {"queries": 5},
}


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("image", ODD)
def test_attacks_on_odd_images_stay_in_their_ball_and_in_the_box(name: str, image: str) -> None:
    images = ODD[image].clamp(min=0)
    for model in (Slope(), Defended(LAYERS["universal"], Slope()).with_adjoint(Identity())):
        made = ATTACKS[name](model, images, torch.tensor([0]), budget=Linf(0.1), **CHEAP[name]).images
        assert bool(((made >= 0) & (made <= 1)).all())
        assert float((made - images).abs().max()) <= 0.1 + 1e-6


@pytest.mark.parametrize("name", CHEAP)
def test_attacks_on_no_image_and_on_an_unreadable_one(name: str) -> None:
    none = ATTACKS[name](
        Slope(), torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64), budget=Linf(0.1), **CHEAP[name]
    )
    assert none.images.shape == (0, 1, 8, 8)
    images = torch.cat([flat(0.5), flat(math.nan)])
    with pytest.raises(InputError, match="image 1 holds NaN or infinity; clean it or leave it out"):
        ATTACKS[name](Slope(), images, torch.tensor([0, 1]), budget=Linf(0.1), **CHEAP[name])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: parity of CPU and GPU is not tested here")
@pytest.mark.parametrize("image", ODD)
def test_cpu_and_gpu_agree(image: str) -> None:
    layer = stratified(1, solver=Auto(tolerance=1e-4))
    on_cpu = layer(ODD[image])
    on_gpu = layer.cuda()(ODD[image].cuda()).cpu()
    assert float((on_cpu - on_gpu).abs().max()) < 1e-2


def test_an_unreadable_image_leaves_the_others_alone_where_asked() -> None:
    images = torch.cat([images_of(1, 1), UNREADABLE["all NaN"]])
    filters = LAYERS["universal"].filters[0]
    solution = solve(SparseCodingProblem(images, filters, 0.1, strict=False))
    alone = solve(SparseCodingProblem(images[:1], filters, 0.1))
    assert solution.result.tolist() == [Result.converged, Result.not_finite]
    assert torch.equal(solution.reconstruction[:1], alone.reconstruction)
    assert solution.failures[1] == "image 1 holds NaN or infinity; leave it out or repair it"
