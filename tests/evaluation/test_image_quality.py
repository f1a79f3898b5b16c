"""Distances between images against their closed forms."""

import math

import pytest
import torch

from quasinat.evaluation import dissimilarity, largest_difference, psnr


@pytest.mark.parametrize("offset", [0.1, 0.5, 1e-3])
def test_a_constant_offset(offset: float) -> None:
    reference = torch.full((2, 3, 5, 7), 0.4, dtype=torch.float64)
    images = reference + offset
    torch.testing.assert_close(psnr(images, reference), torch.full((2,), -20 * math.log10(offset)).double())
    torch.testing.assert_close(dissimilarity(images, reference), torch.full((2,), offset / 0.4).double())
    torch.testing.assert_close(largest_difference(images, reference), torch.full((2,), offset).double())


def test_one_pixel() -> None:
    reference = torch.zeros(1, 1, 4, 4)
    reference[0, 0, 0, 0] = 3.0
    images = reference.clone()
    images[0, 0, 2, 1] = 4.0
    assert float(dissimilarity(images, reference)) == pytest.approx(4 / 3)
    assert float(psnr(images, reference)) == pytest.approx(0.0, abs=1e-5)  # 16 / 16 pixels
    assert float(largest_difference(images, reference)) == 4.0


def test_equal_images_and_black_ones() -> None:
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert psnr(images, images).tolist() == [math.inf, math.inf]
    assert dissimilarity(images, images).tolist() == [0.0, 0.0]
    black = torch.zeros_like(images)
    assert dissimilarity(black, black).tolist() == [0.0, 0.0]


def test_each_image_on_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    images, reference = torch.rand(2, 4, 3, 5, 5, generator=generator)
    for measure in (psnr, dissimilarity, largest_difference):
        together = measure(images, reference)
        assert together.shape == (4,)
        for index in range(4):
            one = slice(index, index + 1)
            torch.testing.assert_close(measure(images[one], reference[one])[0], together[index])
