"""Bit depth against its formula and the nearest of its levels."""

import pytest
import torch

from quasinat.defences.bit_depth import BitDepth, reduce_bit_depth
from quasinat.defended import StraightThrough
from quasinat.errors import UsageError


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_value_goes_to_the_nearest_level(bits: int, dtype: torch.dtype, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 33, 40, generator=generator, dtype=dtype)
    reduced = reduce_bit_depth(images, bits=bits)
    levels = torch.arange(2**bits, dtype=dtype) / (2**bits - 1)
    assert reduced.dtype == dtype
    assert reduced.equal(levels[(images[..., None] - levels).abs().argmin(-1)])
    assert reduced.equal((images * (2**bits - 1)).round() / (2**bits - 1))
    assert reduced.equal(reduce_bit_depth(reduced, bits=bits))
    assert BitDepth(bits=bits)(images).equal(reduced)


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_number_of_levels(bits: int) -> None:
    ramp = torch.linspace(0, 1, 64 * 64).reshape(1, 1, 64, 64)
    reduced = BitDepth(bits=bits)(ramp)
    assert len(reduced.unique()) == 2**bits
    assert (reduced.min(), reduced.max()) == (0, 1)
    assert (reduced - ramp).abs().max() <= 0.5 / (2**bits - 1) + 1e-6


def test_eight_bits_leave_an_image_file_as_it_is() -> None:
    file = torch.arange(1024, dtype=torch.uint8).reshape(1, 1, 32, 32).float() / 255
    assert reduce_bit_depth(file, bits=8).equal(file)


def test_an_image_does_not_depend_on_its_batch(generator: torch.Generator) -> None:
    images = torch.rand(5, 1, 32, 33, generator=generator)
    assert BitDepth()(images)[2].equal(BitDepth()(images[2:3])[0])
    assert BitDepth()(images[:0]).shape == (0, 1, 32, 33)
    assert len(BitDepth()(images).unique()) == 32


def test_its_gradient_must_be_named(generator: torch.Generator) -> None:
    images = torch.rand(1, 3, 32, 32, generator=generator).requires_grad_()
    with pytest.raises(UsageError, match="no gradient is named for BitDepth"):
        BitDepth()(images)
    weights = torch.randn(images.shape, generator=generator)
    (gradient,) = torch.autograd.grad((StraightThrough(BitDepth())(images) * weights).sum(), images)
    assert gradient.equal(weights)


@pytest.mark.parametrize("bits", [-1, 0, 9])
def test_other_depths_are_refused(bits: int) -> None:
    with pytest.raises(UsageError, match=f"bits is {bits}"):
        BitDepth(bits=bits)
    with pytest.raises(UsageError, match=f"bits is {bits}"):
        reduce_bit_depth(torch.zeros(1, 1, 32, 32), bits=bits)
