"""The real matrices do what the complex transforms and the convolutions of `sparse_coding` do."""

import pytest
import torch

from quasinat.export.circular import as_matrices, overlaid, patches
from quasinat.export.fourier import RealFourier, real_kernel
from quasinat.export.low_pass import LowPass
from quasinat.sparse_coding import convolve, correlate, tikhonov_split
from quasinat.sparse_coding.convolution import filter_spectra, from_spectra, to_spectra
from quasinat.sparse_coding.frequency_solve import apply_kernel, gram, woodbury_kernel

SIZES = [(12, 10), (9, 11), (8, 15)]
each_size = pytest.mark.parametrize(("height", "width"), SIZES)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@each_size
def test_the_transform_is_that_of_torch(height: int, width: int) -> None:
    images = drawn(2, 3, height, width)
    fourier = RealFourier(height, width, images)
    spectra, truth = fourier.spectra(images), torch.fft.rfft2(images)
    both = spectra.view(2, 3, 2, height, width // 2 + 1)
    torch.testing.assert_close(torch.complex(both[:, :, 0], both[:, :, 1]), truth)
    torch.testing.assert_close(fourier.images(spectra), images)


@each_size
def test_the_kernel_is_that_of_the_admm(height: int, width: int) -> None:
    images, filters = drawn(2, 3, height, width), drawn(7, 3, 5, 5)
    complex_kernel = woodbury_kernel(gram(filter_spectra(filters, height, width)), 5.0)
    truth = from_spectra(apply_kernel(complex_kernel, to_spectra(images)), height, width)
    fourier = RealFourier(height, width, images)
    kernel = real_kernel(filters, 5.0, height, width)
    found = fourier.images((kernel * fourier.spectra(images)[:, None]).sum(2))
    torch.testing.assert_close(found, truth)


@each_size
def test_patches_and_their_sum_are_the_convolutions(height: int, width: int) -> None:
    filters, codes, images = drawn(7, 3, 5, 5), drawn(2, 7, height, width), drawn(2, 3, height, width)
    matrix = as_matrices(filters)
    found = overlaid(matrix.T @ codes.flatten(2), 3, 5, height, width)
    torch.testing.assert_close(found, convolve(filters, codes))
    torch.testing.assert_close((matrix @ patches(images, 5)).view_as(codes), correlate(filters, images))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33), (7, 9)])
def test_the_low_pass_part_is_that_of_the_split(height: int, width: int) -> None:
    images = drawn(2, 3, height, width)
    torch.testing.assert_close(LowPass(height, width, images)(images), tikhonov_split(images)[0])
