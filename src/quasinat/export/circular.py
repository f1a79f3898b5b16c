"""The convolutions of Eq. (2) as one matrix product for each image, so that every image may have filters of its own.

A convolution whose filters differ from image to image needs as many groups as the batch has images, which a graph with
a dynamic batch cannot say; a batched product can. The boundary and the filters' origin are those of `convolution.py`.
These functions are traced by torch, hence without run-time type checks.
"""

from typing import no_type_check

import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Filters


def as_matrices(filters: Filters) -> Tensor:
    """Filters `K C S S` as the matrix `K (C S S)` whose columns are those of `patches`."""
    return filters.transpose(2, 3).reshape(len(filters), -1).contiguous()


@no_type_check
def patches(images: Tensor, size: int) -> Tensor:
    """The S x S pixels that each pixel begins, wrapped around: `B C H W` to `B (C S S) (H W)`; columns before rows."""
    batch, channels, height, width = images.shape
    wide = torch.cat([images, images[..., : size - 1]], 3)
    wide = torch.cat([wide, wide[:, :, : size - 1]], 2)
    wide = torch.stack([wide[..., shift : shift + width] for shift in range(size)], 2)
    tall = torch.stack([wide[..., shift : shift + height, :] for shift in range(size)], 3)
    return tall.reshape(batch, channels * size * size, height * width)


@no_type_check
def overlaid(parts: Tensor, channels: int, size: int, height: int, width: int) -> Tensor:
    """The adjoint of `patches`: `B (C S S) (H W)` to `B C H W`, the sum of what falls on each pixel."""
    parts = parts.view(parts.shape[0], channels, size, size, height, width)
    tall = F.pad(parts[:, :, :, 0], (0, 0, 0, size - 1))
    for shift in range(1, size):
        tall = tall + F.pad(parts[:, :, :, shift], (0, 0, shift, size - 1 - shift))
    tall = torch.cat([tall[..., : size - 1, :] + tall[..., height:, :], tall[..., size - 1 : height, :]], 3)
    wide = F.pad(tall[:, :, 0], (0, size - 1))
    for shift in range(1, size):
        wide = wide + F.pad(tall[:, :, shift], (shift, size - 1 - shift))
    return torch.cat([wide[..., : size - 1] + wide[..., width:], wide[..., size - 1 : width]], 3)
