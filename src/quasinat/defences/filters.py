"""Smoothing: the median, the mean or the Gaussian average of each pixel's neighbourhood, channel by channel.

All three take what is outside the frame from the image mirrored about its edge (d c b a | a b c d | d c b a), as
`scipy.ndimage` does by default (mode "reflect"). The window of an even size reaches one pixel further up and to the
left, as there. The gradient is exact; the median's is shared, in some way, by the pixels that equal it.
"""

import math
from typing import ClassVar

import torch

from quasinat.arrays import Images
from quasinat.attacks.checks import check_count, check_number
from quasinat.defences.image_bounds import in_range
from quasinat.defences.transformation import Transformation
from quasinat.errors import UsageError

LARGEST = 5  # pixels a side of a window; the median sorts as many copies of the image as the window has pixels
PIECE = 16  # images whose medians are taken at once
TRUNCATE = 4.0  # deviations of the Gaussian; as scipy.ndimage and scikit-image


def median_filter(images: Images, *, size: int = 2) -> Images:
    """The median of the `size x size` pixels around each pixel.

    Local smoothing of feature squeezing (Xu, Evans & Qi 2018, "Feature Squeezing", section III-B; 2 x 2 for CIFAR-10
    and ImageNet), and one of the filters of Osadchy et al. (2017). Of an even number of pixels it is the upper one of
    the two in the middle, as `scipy.ndimage.median_filter` takes it, which feature squeezing uses.

    Args:
        images: `B C H W` in [0, 1].
        size: of the window, in pixels, from 2 to 5.

    What differs from the source, and why: nothing.

    Raises:
        UsageError: a size that is out of range.

    Examples:
        >>> import torch
        >>> from quasinat.defences import median_filter
        >>> speck = torch.zeros(1, 1, 5, 5)
        >>> speck[0, 0, 2, 2] = 1
        >>> float(median_filter(speck, size=3).max())
        0.0
    """
    _check_size(size)
    return torch.cat([_medians(part, size) for part in images.split(PIECE)])


def mean_filter(images: Images, *, size: int = 3) -> Images:
    """The mean of the `size x size` pixels around each pixel, one of the filters of Osadchy et al. (2017).

    Args:
        images: `B C H W` in [0, 1].
        size: of the window, in pixels, from 2 to 5.

    What differs from the source, and why: nothing; `scipy.ndimage.uniform_filter` gives the same.

    Raises:
        UsageError: a size that is out of range.
    """
    _check_size(size)
    return in_range(_averages(images, [1 / size] * size))


def gaussian_filter(images: Images, *, sigma: float = 1.0) -> Images:
    """The average around each pixel with Gaussian weights, which are cut off at 4 deviations and sum to 1.

    Args:
        images: `B C H W` in [0, 1].
        sigma: the deviation, in pixels, at most 8. The paper that is compared with names no value; 1 is the default
            of scikit-image.

    What differs from the source, and why: `skimage.filters.gaussian` repeats the pixels of the edge by default; here
    the image is mirrored, as for the other two (`mode="reflect"` there).

    Raises:
        UsageError: a deviation that is out of range.
    """
    _check_sigma(sigma)
    radius = int(TRUNCATE * sigma + 0.5)
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)]
    total = math.fsum(weights)
    return in_range(_averages(images, [weight / total for weight in weights]))


class MedianFilter(Transformation):
    """`median_filter` as a module; its arguments are there."""

    differentiable: ClassVar[bool] = True

    def __init__(self, *, size: int = 2) -> None:
        super().__init__()
        _check_size(size)
        self.size = size

    def transform(self, images: Images) -> Images:
        """The images, filtered."""
        return median_filter(images, size=self.size)


class MeanFilter(Transformation):
    """`mean_filter` as a module; its arguments are there."""

    differentiable: ClassVar[bool] = True

    def __init__(self, *, size: int = 3) -> None:
        super().__init__()
        _check_size(size)
        self.size = size

    def transform(self, images: Images) -> Images:
        """The images, filtered."""
        return mean_filter(images, size=self.size)


class GaussianFilter(Transformation):
    """`gaussian_filter` as a module; its arguments are there."""

    differentiable: ClassVar[bool] = True

    def __init__(self, *, sigma: float = 1.0) -> None:
        super().__init__()
        _check_sigma(sigma)
        self.sigma = sigma

    def transform(self, images: Images) -> Images:
        """The images, filtered."""
        return gaussian_filter(images, sigma=self.sigma)


def _check_size(size: int) -> None:
    check_count("size", size, least=2)
    if size > LARGEST:
        raise UsageError(f"size is {size}", f"give a window of at most {LARGEST} pixels a side")


def _check_sigma(sigma: float) -> None:
    check_number("sigma", sigma)
    if not 0.125 <= sigma <= 8:
        raise UsageError(f"sigma is {sigma}", "give from 0.125 (which changes nothing) to 8 pixels")


def _medians(images: Images, size: int) -> Images:
    """The value of rank size^2 // 2 in each window, counted from 0."""
    if size == 2:  # the second largest of two ordered pairs
        low, high = _ordered(*_shifted(images, 2, size))
        lows, highs = _shifted(low, 3, size), _shifted(high, 3, size)
        return torch.minimum(*highs).maximum(lows[0]).maximum(lows[1])
    if size == 3:  # of three ordered triples, the middle of: the largest low, the middle middle, the smallest high one
        lows, middles, highs = (_shifted(part, 3, size) for part in _ordered_triple(*_shifted(images, 2, size)))
        largest, smallest = lows[0].maximum(lows[1]).maximum(lows[2]), highs[0].minimum(highs[1]).minimum(highs[2])
        return _ordered_triple(largest, _ordered_triple(*middles)[1], smallest)[1]
    windows = [part for rows in _shifted(images, 2, size) for part in _shifted(rows, 3, size)]
    return torch.stack(windows).sort(0).values[size * size // 2]


def _ordered(first: Images, second: Images) -> tuple[Images, Images]:
    return torch.minimum(first, second), torch.maximum(first, second)


def _ordered_triple(first: Images, second: Images, third: Images) -> tuple[Images, Images, Images]:
    first, second = _ordered(first, second)
    second, third = _ordered(second, third)
    first, second = _ordered(first, second)
    return first, second, third


def _averages(images: Images, weights: list[float]) -> Images:
    """Weighted averages over rows and then columns: sums of shifted images, which no batch size rounds otherwise."""
    for axis in (2, 3):
        terms = [weight * part for weight, part in zip(weights, _shifted(images, axis, len(weights)), strict=True)]
        images = sum(terms[1:], terms[0])
    return images


def _shifted(images: Images, axis: int, size: int) -> list[Images]:
    """For each place in a window of `size`, the images moved so that a pixel finds there what is at that place."""
    length = images.shape[axis]
    before = size // 2
    positions = torch.arange(-before, length + size - 1 - before, device=images.device) % (2 * length)
    wider = images.index_select(axis, torch.minimum(positions, 2 * length - 1 - positions))
    return [wider.narrow(axis, start, length) for start in range(size)]
