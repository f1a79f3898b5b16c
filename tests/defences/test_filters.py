"""The filters against scipy and scikit-image; their gradients against the filters' own linear maps."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import skimage.filters
import torch
from numpy.typing import NDArray
from torch import Tensor

from quasinat.attacks import Linf, pgd
from quasinat.defences.filters import (
    GaussianFilter,
    MeanFilter,
    MedianFilter,
    gaussian_filter,
    mean_filter,
    median_filter,
)
from quasinat.defences.image_bounds import in_range
from quasinat.defences.transformation import Transformation
from quasinat.errors import InputError, UsageError

SHAPES = [(2, 3, 33, 40), (2, 1, 32, 32), (1, 4, 47, 35)]
FILTERS = [MedianFilter(), MedianFilter(size=3), MeanFilter(), MeanFilter(size=2), GaussianFilter()]
every_filter = pytest.mark.parametrize("module", FILTERS, ids=lambda m: f"{type(m).__name__}-{m.settings()}")
shapes = pytest.mark.parametrize("shape", SHAPES)


def plane_by_plane(filtered: Callable[[NDArray], NDArray], images: Tensor) -> Tensor:
    return torch.stack([torch.stack([torch.from_numpy(filtered(p.numpy())) for p in image]) for image in images])


@shapes
@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_median_is_scipys_to_the_pixel(
    shape: tuple[int, ...], size: int, dtype: torch.dtype, generator: torch.Generator
) -> None:
    images = torch.rand(shape, generator=generator, dtype=dtype)
    truth = plane_by_plane(lambda plane: scipy.ndimage.median_filter(plane, size=size, mode="reflect"), images)
    found = median_filter(images, size=size)
    assert found.dtype == dtype
    assert found.equal(truth)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_median_of_many_equal_values(size: int, generator: torch.Generator) -> None:
    images = torch.randint(3, (2, 1, 64, 64), generator=generator) / 2.0
    truth = plane_by_plane(lambda plane: scipy.ndimage.median_filter(plane, size=size, mode="reflect"), images)
    watched = images.clone().requires_grad_()
    found = median_filter(watched, size=size)
    assert found.equal(truth)
    (gradient,) = torch.autograd.grad(found[..., 10, 20].sum(), watched)
    assert gradient[:, :, 10 - size // 2 : 10 + (size + 1) // 2, 20 - size // 2 : 20 + (size + 1) // 2].sum() == 2
    assert (gradient >= 0).all()
    assert (
        watched[gradient > 0] == found[..., 10, 20].expand(2, 1)[..., None, None].expand_as(watched)[gradient > 0]
    ).all()


def test_the_median_of_a_batch_of_several_pieces(generator: torch.Generator) -> None:
    images = torch.rand(35, 1, 32, 33, generator=generator)
    truth = plane_by_plane(lambda plane: scipy.ndimage.median_filter(plane, size=2, mode="reflect"), images)
    assert median_filter(images).equal(truth)


@shapes
@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_mean_is_scipys(shape: tuple[int, ...], size: int, generator: torch.Generator) -> None:
    images = torch.rand(shape, generator=generator, dtype=torch.float64)
    truth = plane_by_plane(lambda plane: scipy.ndimage.uniform_filter(plane, size=size, mode="reflect"), images)
    torch.testing.assert_close(mean_filter(images, size=size), truth, rtol=0, atol=1e-14)
    found = mean_filter(images.float(), size=size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, truth.float(), rtol=0, atol=3e-7)


@shapes
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.2, 8.0])
def test_the_gaussian_is_scikit_images(shape: tuple[int, ...], sigma: float, generator: torch.Generator) -> None:
    images = torch.rand(shape, generator=generator, dtype=torch.float64)
    truth = plane_by_plane(lambda plane: skimage.filters.gaussian(plane, sigma, mode="reflect", truncate=4.0), images)
    torch.testing.assert_close(gaussian_filter(images, sigma=sigma), truth, rtol=0, atol=1e-14)
    torch.testing.assert_close(gaussian_filter(images.float(), sigma=sigma), truth.float(), rtol=0, atol=1e-6)


@every_filter
def test_the_modules_give_what_the_functions_give(module: Transformation, generator: torch.Generator) -> None:
    images = torch.rand(3, 3, 32, 37, generator=generator)
    function = {MedianFilter: median_filter, MeanFilter: mean_filter, GaussianFilter: gaussian_filter}[type(module)]
    assert module(images).equal(function(images, **module.settings()))


@every_filter
def test_an_image_does_not_depend_on_its_batch(module: Transformation, generator: torch.Generator) -> None:
    images = torch.rand(18, 3, 33, 32, generator=generator)
    filtered = module(images)
    for number in (0, 7, 17):
        assert filtered[number].equal(module(images[number : number + 1])[0])
    assert module(images[:0]).shape == (0, 3, 33, 32)


@every_filter
def test_white_stays_white_and_is_differentiated(module: Transformation) -> None:
    for dtype in (torch.float32, torch.float64):
        images = torch.ones(1, 3, 32, 32, dtype=dtype, requires_grad=True)
        filtered = module(images)
        assert filtered.amax() <= 1
        torch.testing.assert_close(filtered, images, rtol=0, atol=1e-6)
        (gradient,) = torch.autograd.grad(filtered.sum(), images)
        # Each output's weights sum to 1, a median's too.
        torch.testing.assert_close(gradient.sum(), torch.tensor(3.0 * 32 * 32, dtype=dtype), rtol=1e-5, atol=0)


@every_filter
def test_the_gradient_is_the_finite_difference(module: Transformation, generator: torch.Generator) -> None:
    images = torch.rand(2, 1, 32, 35, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    watched = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((module(watched) * weights).sum(), watched)
    for _ in range(5):
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        step = 1e-7  # pieces of the median are linear, and shorter than their distances from one another
        difference = (module(images + step * direction) - module(images - step * direction)) / (2 * step)
        assert (difference * weights).sum().item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


def test_rounding_is_brought_back_with_the_identity_as_its_derivative() -> None:
    values = torch.tensor([-1e-9, 0.0, 0.3, 1.0, 1 + 1e-9], dtype=torch.float64, requires_grad=True)
    kept = in_range(values)
    assert kept.tolist() == [0.0, 0.0, 0.3, 1.0, 1.0]
    assert torch.autograd.grad(kept.sum(), values)[0].tolist() == [1.0] * 5


def test_an_attack_climbs_through_the_filter_without_a_named_gradient(generator: torch.Generator) -> None:
    images = torch.rand(2, 1, 32, 32, generator=generator) * 0.8 + 0.1
    weight = torch.randn(1024, 3, generator=generator)
    network = torch.nn.Sequential(GaussianFilter(), torch.nn.Flatten(), torch.nn.Linear(1024, 3, bias=False))
    network[2].weight.data.copy_(weight.T)
    labels = network(images).argmax(1)
    result = pgd(network, images, labels, budget=Linf(0.1), steps=5)
    assert result.success.all()


def test_what_is_refused() -> None:
    for make in (MedianFilter, MeanFilter):
        for size in (0, 1, 6):
            with pytest.raises(UsageError, match=f"size is {size}"):
                make(size=size)
    for function in (median_filter, mean_filter):
        with pytest.raises(UsageError, match="size is 7"):
            function(torch.zeros(1, 1, 32, 32), size=7)
    for sigma in (0.0, -1.0, float("nan"), 9.0, 0.01):
        with pytest.raises(UsageError, match="sigma is"):
            GaussianFilter(sigma=sigma)
        with pytest.raises(UsageError, match="sigma is"):
            gaussian_filter(torch.zeros(1, 1, 32, 32), sigma=sigma)
    with pytest.raises(InputError, match="too small for MeanFilter"):
        MeanFilter()(torch.zeros(1, 1, 31, 32))
    with pytest.raises(InputError, match="leaves"):
        MedianFilter()(torch.full((1, 1, 32, 32), 1.5))


def test_the_two_sided_window_of_an_even_size_reaches_up_and_left() -> None:
    plane = np.zeros((32, 32))
    plane[10, 20] = 1
    spread = mean_filter(torch.from_numpy(plane)[None, None], size=2)[0, 0]
    assert spread.nonzero().tolist() == [[10, 20], [10, 21], [11, 20], [11, 21]]
    assert spread.sum() == 1
