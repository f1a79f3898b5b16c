"""Fewer levels for each pixel's value."""

from quasinat.arrays import Images
from quasinat.attacks.checks import check_count
from quasinat.defences.transformation import Transformation
from quasinat.errors import UsageError


def reduce_bit_depth(images: Images, *, bits: int = 5) -> Images:
    """The nearest of `2^bits` evenly spaced levels from 0 to 1: round(x (2^b - 1)) / (2^b - 1).

    Xu, Evans & Qi (2018), "Feature Squeezing", section III-A. Its derivative is zero almost everywhere.

    Args:
        images: `B C H W` in [0, 1].
        bits: from 1 to 8; feature squeezing takes 4 or 5 for colour images, Guo et al. (2018) 3.

    What differs from the source, and why: nothing. (The code of Guo et al. multiplies by 2^b, which gives 2^b + 1
    levels.)

    Raises:
        UsageError: a number of bits that is out of range.

    Examples:
        >>> import torch
        >>> from quasinat.defences import reduce_bit_depth
        >>> reduce_bit_depth(torch.tensor([[[[0.0, 0.2, 0.9]]]]), bits=1)
        tensor([[[[0., 0., 1.]]]])
    """
    _check_bits(bits)
    highest = 2**bits - 1
    return (images * highest).round() / highest


class BitDepth(Transformation):
    """`reduce_bit_depth` as a module; its arguments are there. To differentiate it, name a gradient."""

    def __init__(self, *, bits: int = 5) -> None:
        super().__init__()
        _check_bits(bits)
        self.bits = bits

    def transform(self, images: Images) -> Images:
        """The images with fewer levels."""
        return reduce_bit_depth(images, bits=self.bits)


def _check_bits(bits: int) -> None:
    check_count("bits", bits)
    if bits > 8:
        raise UsageError(f"bits is {bits}", "give at most 8, the depth of an image file")
