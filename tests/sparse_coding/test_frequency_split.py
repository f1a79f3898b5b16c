"""The Tikhonov split against its definition and against SPORCO's."""

import warnings

import pytest
import torch

from quasinat.sparse_coding import tikhonov_split

SHAPES = [(1, 32, 32), (3, 32, 32), (3, 17, 23), (1, 9, 40), (3, 5, 7), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bands_add_up_and_are_sporcos(shape: tuple[int, int, int], generator: torch.Generator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal = pytest.importorskip("sporco.signal")
    images = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    low, high = tikhonov_split(images)
    torch.testing.assert_close(low + high, images, rtol=0, atol=1e-15)
    for image, low_image, high_image in zip(images, low, high, strict=True):
        theirs = signal.tikhonov_filter(image.permute(1, 2, 0).numpy(), 5.0, 16)
        for ours, their in zip((low_image, high_image), theirs, strict=True):
            torch.testing.assert_close(ours, torch.from_numpy(their).permute(2, 0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_image_is_all_low(shape: tuple[int, int, int], level: float) -> None:
    images = torch.full((1, *shape), level)
    low, high = tikhonov_split(images)
    torch.testing.assert_close(low, images, rtol=0, atol=1e-6)
    assert high.abs().max() < 1e-6


def test_low_minimises_the_energy_that_defines_it(generator: torch.Generator) -> None:
    """On the continued image, where the split is exactly the minimiser; here without padding, on a periodic image."""
    images = torch.rand(1, 1, 8, 8, generator=generator, dtype=torch.float64)

    def energy(low: torch.Tensor) -> torch.Tensor:
        gradient = sum((low - low.roll(1, dims=axis)).square().sum() for axis in (2, 3))
        return (low - images).square().sum() / 2 + 2.5 * gradient

    low = tikhonov_split(images, padding=0)[0].requires_grad_()
    (gradient,) = torch.autograd.grad(energy(low), low)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_image_alone_and_the_dtype_is_kept(dtype: torch.dtype, generator: torch.Generator) -> None:
    images = torch.rand(3, 2, 11, 8, generator=generator, dtype=dtype)
    low, _ = tikhonov_split(images)
    assert low.dtype == dtype
    for index in range(3):
        torch.testing.assert_close(tikhonov_split(images[index : index + 1])[0], low[index : index + 1])
    assert tikhonov_split(images[:0])[0].shape == (0, 2, 11, 8)
