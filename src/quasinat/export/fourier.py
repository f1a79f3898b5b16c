"""Fourier transforms of real images as products with real matrices, so that a graph of them holds no complex number.

A spectrum is the half of `torch.fft.rfft2`, its real and imaginary part side by side: `B 2C F`, channel by channel real
then imaginary, with F = H (W // 2 + 1) frequencies. The two transforms are traced by torch, hence without run-time type
checks.
"""

import math
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Filters
from quasinat.sparse_coding.convolution import filter_spectra
from quasinat.sparse_coding.frequency_solve import gram, woodbury_kernel


class RealFourier(nn.Module):
    """The transform of images of one size and its inverse.

    Args:
        height, width: of the images.
        like: a tensor whose dtype and device the matrices take.
    """

    rows: Tensor
    rows_back: Tensor
    columns: Tensor
    columns_back: Tensor

    def __init__(self, height: int, width: int, like: Tensor) -> None:
        super().__init__()
        self.height, self.width, self.half_width = height, width, width // 2 + 1
        cosine, sine = _waves(width, self.half_width)
        # A real image's spectrum holds each frequency twice, but for the first and, where the width is even, the last.
        twice = torch.full((self.half_width,), 2.0, dtype=torch.float64)
        twice[0] = 1
        if width % 2 == 0:
            twice[-1] = 1
        self.register_buffer("columns", torch.cat([cosine, -sine], 1).to(like))
        self.register_buffer(
            "columns_back", (torch.cat([cosine * twice, -sine * twice], 1).T / width).to(like).contiguous()
        )
        cosine, sine = _waves(height, height)
        forward = torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)])
        self.register_buffer("rows", forward.to(like))
        self.register_buffer("rows_back", (forward.T / height).to(like).contiguous())

    @no_type_check
    def spectra(self, images: Tensor) -> Tensor:
        """Images `B C H W` to their spectra `B 2C F`."""
        batch, channels = images.shape[:2]
        along = (images @ self.columns).view(batch, channels, self.height, 2, self.half_width)
        stacked = along.transpose(2, 3).reshape(batch, channels, 2 * self.height, self.half_width)
        return (self.rows @ stacked).view(batch, 2 * channels, self.height * self.half_width)

    @no_type_check
    def images(self, spectra: Tensor) -> Tensor:
        """Spectra `B 2C F` to their images `B C H W`."""
        batch, channels = spectra.shape[0], spectra.shape[1] // 2
        stacked = self.rows_back @ spectra.view(batch, channels, 2 * self.height, self.half_width)
        along = stacked.view(batch, channels, 2, self.height, self.half_width).transpose(2, 3)
        return along.reshape(batch, channels, self.height, 2 * self.half_width) @ self.columns_back


def real_kernel(filters: Filters, penalty: float, height: int, width: int) -> Float[Tensor, "pairs pairs frequencies"]:
    """(rho I + D D^H)^-1 at every frequency as a real matrix on spectra, `2C 2C F`; computed in float64."""
    kernel = woodbury_kernel(gram(filter_spectra(filters.double(), height, width)), penalty)[0]
    real, imaginary = kernel.real, kernel.imag
    pairs = torch.stack([torch.stack([real, -imaginary], 2), torch.stack([imaginary, real], 2)], 1)
    channels = filters.shape[1]
    return pairs.reshape(2 * channels, 2 * channels, -1).to(filters)


def _waves(length: int, frequencies: int) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi n k / length in float64, `length frequencies`."""
    turns = torch.arange(length)[:, None] * torch.arange(frequencies) % length
    angles = 2 * math.pi * turns.double() / length
    return angles.cos(), angles.sin()
