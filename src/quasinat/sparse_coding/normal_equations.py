"""The filter update's linear system at every frequency: (Z^H Z + rho I) d = b, for the codes of a block of images."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Complex
from torch import Tensor

from quasinat.arrays import Codes, Filters, Images
from quasinat.sparse_coding.convolution import to_spectra

Right = Complex[Tensor, "frequencies filters channels"]
Maps = Complex[Tensor, "frequencies images filters"]


class NormalEquations(Protocol):
    """A system whose matrix is factored."""

    def solve(self, right: Right) -> Right: ...


@dataclass(frozen=True)
class ByFilters:
    """For many images: the K x K matrix, by its Cholesky factor."""

    factor: Complex[Tensor, "frequencies filters filters"]

    def solve(self, right: Right) -> Right:
        return torch.cholesky_solve(right, self.factor)


@dataclass(frozen=True)
class ByImages:
    """For fewer images than filters: the B x B matrix instead, by the Woodbury identity

    (Z^H Z + rho I)^-1 b = (b - Z^H (Z Z^H + rho I)^-1 Z b) / rho.
    """

    maps: Maps
    factor: Complex[Tensor, "frequencies images images"]
    penalty: float

    def solve(self, right: Right) -> Right:
        inner = torch.cholesky_solve(self.maps @ right, self.factor)
        return (right - self.maps.mH @ inner) / self.penalty


def maps_of(codes: Codes) -> Maps:
    """The spectra Z of codes `B K H W`, a B x K matrix at every frequency."""
    return to_spectra(codes).permute(2, 3, 0, 1).flatten(0, 1)


def right_side(maps: Maps, images: Images) -> Right:
    """Z^H x at every frequency."""
    return maps.mH @ to_spectra(images).permute(2, 3, 0, 1).flatten(0, 1)


def system_bytes(images: int, filters: Filters, height: int, width: int) -> int:
    """Memory of the factored system of a block of images of `height` x `width`, with right side, d_n and dual."""
    count, channels = filters.shape[:2]
    matrix = images * (count + images) if images < count else count * count
    return height * (width // 2 + 1) * 2 * filters.dtype.itemsize * (matrix + 3 * count * channels)
