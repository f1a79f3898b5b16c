import numpy as np
import pytest
import torch
from torch import Tensor

from quasinat.defences.wavelet import WaveletShrinkage, check_settings, haar, inverse_haar, wavelet_shrinkage
from quasinat.errors import InputError, UsageError

SIZES = [(32, 32), (48, 40), (33, 47), (64, 37)]


def pictures(generator: torch.Generator, count: int, channels: int, height: int, width: int) -> Tensor:
    """Something smooth with an edge and noise, so that some coefficients are kept and some are not; float64."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 2, width), indexing="ij")
    shade = torch.stack([torch.sin(rows * (c + 1) + columns) for c in range(channels)]) / 4 + (columns > 1) / 5
    noise = torch.randn(count, channels, height, width, generator=generator) * 0.06
    return (0.4 + shade + noise).clamp(0, 1).double()


def by_package(image: Tensor, **options: object) -> Tensor:
    from skimage.restoration import denoise_wavelet

    return torch.from_numpy(denoise_wavelet(image.numpy(), wavelet="db1", **options))


def by_old_package(image: Tensor, sigma: float, **options: object) -> Tensor:
    """What scikit-image 0.13 to 0.15 did in YCbCr, from the parts of today's: sigma is that of the scaled channels."""
    from skimage.color import rgb2ycbcr, ycbcr2rgb

    planes = rgb2ycbcr(image.numpy(), channel_axis=0)
    for plane in planes:
        low, high = plane.min(), plane.max()
        scaled = by_package(torch.from_numpy((plane - low) / (high - low)), sigma=sigma, **options).numpy()
        plane[:] = scaled.clip(0, 1) * (high - low) + low
    return torch.from_numpy(ycbcr2rgb(planes, channel_axis=0).clip(0, 1))


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_transform_is_pywavelets(height: int, width: int, levels: int, generator: torch.Generator) -> None:
    import pywt

    images = torch.rand(2, 2, height, width, generator=generator, dtype=torch.float64)
    averages, details = haar(images, levels)
    expected = pywt.wavedec2(images.numpy(), "db1", mode="symmetric", level=levels)
    assert torch.allclose(averages, torch.from_numpy(expected[0]), atol=1e-12)
    for bands, theirs in zip(details, reversed(expected[1:]), strict=True):
        for band, other in zip(bands, theirs, strict=True):
            assert torch.allclose(band, torch.from_numpy(other), atol=1e-12)


@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_inverse_gives_the_images_back(height: int, width: int, levels: int, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
    assert torch.allclose(inverse_haar(*haar(images, levels), height, width), images, atol=1e-12)


def test_the_transform_is_orthonormal(generator: torch.Generator) -> None:
    first, second = torch.randn(2, 1, 1, 32, 48, generator=generator, dtype=torch.float64)

    def coefficients(images: Tensor) -> Tensor:
        averages, details = haar(images, 4)
        return torch.cat([part.flatten() for part in (averages, *(band for bands in details for band in bands))])

    assert coefficients(first).numel() == first.numel()
    assert torch.allclose(coefficients(first) @ coefficients(second), (first * second).sum())
    assert torch.allclose(coefficients(first).square().sum(), first.square().sum())


@pytest.mark.parametrize(("method", "theirs"), [("bayes", "BayesShrink"), ("visu", "VisuShrink")])
@pytest.mark.parametrize("mode", ["soft", "hard"])
@pytest.mark.parametrize(("height", "width", "levels"), [(*SIZES[0], None), (*SIZES[2], None), (*SIZES[3], 4)])
def test_it_is_scikit_images(
    method: str, theirs: str, mode: str, height: int, width: int, levels: int | None, generator: torch.Generator
) -> None:
    options = {"sigma": 0.04, "mode": mode}
    other = options | {"method": theirs, "wavelet_levels": levels}
    options |= {"method": method, "levels": levels}
    images = pictures(generator, 2, 3, height, width)
    new = wavelet_shrinkage(images, sigma_unit="image", **options)
    old = wavelet_shrinkage(images, **options)
    plain = wavelet_shrinkage(images, colour="none", **options)
    grey = wavelet_shrinkage(images[:, :1], **options)
    for row, image in enumerate(images):
        expected = by_package(image, convert2ycbcr=True, channel_axis=0, rescale_sigma=True, **other)
        assert torch.allclose(new[row], expected.clamp(0, 1), atol=1e-10)
        assert torch.allclose(old[row], by_old_package(image, **other), atol=1e-10)
        assert torch.allclose(plain[row], by_package(image, channel_axis=0, **other).clamp(0, 1), atol=1e-10)
        assert torch.allclose(grey[row, 0], by_package(image[0], **other).clamp(0, 1), atol=1e-10)
    assert not torch.allclose(old, new, atol=1e-3)
    assert not torch.allclose(old, images, atol=1e-2)


def test_the_default_levels_of_a_larger_image_are_scikit_images(generator: torch.Generator) -> None:
    image = pictures(generator, 1, 1, 224, 130)
    expected = by_package(image[0, 0], sigma=0.04)
    assert torch.allclose(wavelet_shrinkage(image)[0, 0], expected.clamp(0, 1), atol=1e-10)
    assert not torch.allclose(wavelet_shrinkage(image, levels=2)[0, 0], expected, atol=1e-3)


def test_single_precision_is_close_to_double(generator: torch.Generator) -> None:
    images = pictures(generator, 3, 3, 33, 40)
    single = wavelet_shrinkage(images.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), wavelet_shrinkage(images), atol=1e-5)


def test_grey_and_constant_images_have_no_chrominance_and_stay_finite(generator: torch.Generator) -> None:
    grey = pictures(generator, 2, 1, 32, 32).expand(-1, 3, -1, -1)
    made = wavelet_shrinkage(grey)
    assert torch.allclose(made, made.mean(1, keepdim=True).expand_as(made), atol=1e-6)
    for value in (0.0, 0.3, 1.0):
        constant = torch.full((1, 3, 32, 32), value)
        assert torch.allclose(wavelet_shrinkage(constant), constant, atol=1e-6)


def test_noise_is_removed(generator: torch.Generator) -> None:
    clean = torch.linspace(0.3, 0.7, 64).expand(1, 1, 64, 64)
    noisy = (clean + 0.04 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    assert (wavelet_shrinkage(noisy) - clean).square().mean() < 0.3 * (noisy - clean).square().mean()


@pytest.mark.parametrize("channels", [1, 3])
def test_images_do_not_depend_on_their_batch(channels: int, generator: torch.Generator) -> None:
    images = pictures(generator, 4, channels, 33, 40)
    transform = WaveletShrinkage(sigma=0.05)
    whole = transform(images)
    assert whole.shape == images.shape
    assert torch.equal(whole, wavelet_shrinkage(images, sigma=0.05))
    for row in range(4):
        assert torch.allclose(whole[row], transform(images[row : row + 1])[0], atol=1e-14)
    assert transform(images[:0]).shape == images[:0].shape


@pytest.mark.parametrize("options", [{}, {"sigma_unit": "image"}, {"method": "visu", "colour": "none"}])
def test_the_derivative_is_that_of_finite_differences(options: dict[str, str], generator: torch.Generator) -> None:
    images = pictures(generator, 2, 3, 33, 32).mul(0.5).add(0.2)
    transform = WaveletShrinkage(**options)
    towards, weights = torch.randn(2, *images.shape, generator=generator, dtype=torch.float64)

    def value(images: Tensor) -> Tensor:
        return (transform(images) * weights).sum()

    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = 1e-8
    slope = (value(images + step * towards) - value(images - step * towards)) / (2 * step)
    assert torch.allclose((gradient * towards).sum(), slope, rtol=1e-4)


def test_what_it_refuses() -> None:
    for options, problem in [({"sigma": 0.0}, "sigma is 0"), ({"levels": 0}, "levels is 0")]:
        with pytest.raises(UsageError, match=problem):
            WaveletShrinkage(**options)
    known = {"sigma": 0.1, "method": "bayes", "mode": "soft", "levels": 1, "colour": "none", "sigma_unit": "image"}
    check_settings(**known)
    for name in ("method", "mode", "colour", "sigma_unit"):
        with pytest.raises(UsageError, match=f"unknown {name} 'odd'"):
            check_settings(**known | {name: "odd"})
    with pytest.raises(InputError, match="no 6 levels"):
        wavelet_shrinkage(torch.rand(1, 1, 32, 32), levels=6)


def test_the_thresholds_are_where_numpy_puts_them(generator: torch.Generator) -> None:
    """By hand, without either package: one level of an image of two by two blocks, each band by its formula."""
    blocks = torch.rand(16, 16, 4, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    image = blocks.unflatten(2, (2, 2)).permute(0, 2, 1, 3).reshape(1, 1, 32, 32)
    basis = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
    bands = blocks.numpy() @ basis.T
    for band in range(1, 4):
        values, variance = bands[..., band], 0.2**2
        threshold = variance / np.sqrt(max((values**2).mean() - variance, np.finfo(float).eps))
        bands[..., band] = np.sign(values) * np.maximum(np.abs(values) - threshold, 0)
    expected = torch.from_numpy(bands @ basis).unflatten(2, (2, 2)).permute(0, 2, 1, 3).reshape(1, 1, 32, 32)
    assert torch.allclose(wavelet_shrinkage(image, sigma=0.2, levels=1), expected.clamp(0, 1), atol=1e-12)
