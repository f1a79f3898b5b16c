"""Eq. (2) of the paper with the filters fixed, also known as convolutional basis pursuit denoising (CBPDN)."""

import math
from dataclasses import dataclass

import torch

from quasinat.arrays import Codes, Filters, Images, PerImage
from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding.convolution import convolve, correlate


@dataclass(frozen=True)
class SparseCodingProblem:
    """min over z of 1/2 sum_c || sum_k f_{k,c} (*) z_k - x_c ||^2 + lambda sum_k || z_k ||_1, for each image (Eq. 2).

    Args:
        images: x, `B C H W`, any real values; each side at least the filters' size.
        filters: f, `K C S S`, of the same dtype, device and channels.
        sparsity: lambda >= 0, in the images' units.

    Raises:
        InputError: shapes, dtypes or values that cannot be coded; names them.
        UsageError: lambda is negative or not a number.
    """

    images: Images
    filters: Filters
    sparsity: float

    def __post_init__(self) -> None:
        channels, size = self.filters.shape[1], self.filters.shape[-1]
        if self.images.shape[1] != channels:
            raise InputError(
                f"the images have {self.images.shape[1]} channels and the filters {channels}",
                "convert the images, or learn a dictionary on images like these",
            )
        if min(self.images.shape[-2:]) < size:
            height, width = self.images.shape[-2:]
            raise InputError(
                f"images of {height} x {width} pixels are smaller than the filters ({size} x {size})",
                "use larger images or a dictionary of smaller filters",
            )
        if self.images.dtype != self.filters.dtype:
            problem = f"images of {self.images.dtype} and filters of {self.filters.dtype}"
            raise InputError(problem, "convert one of them")
        if not (self.sparsity >= 0 and math.isfinite(self.sparsity)):
            raise UsageError(f"sparsity {self.sparsity} is not a finite number >= 0", "the paper uses 0.2")
        finite = self.images.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            raise InputError(f"image {int((~finite).nonzero()[0])} holds NaN or infinity", "leave it out or repair it")

    def fidelity(self, codes: Codes) -> PerImage:
        """1/2 sum_c || sum_k f_{k,c} (*) z_k - x_c ||^2, per image."""
        residual = convolve(self.filters, codes) - self.images
        return residual.square().flatten(1).sum(1) / 2

    def objective(self, codes: Codes) -> PerImage:
        """The value of Eq. (2) at `codes`, per image."""
        return self.fidelity(codes) + self.sparsity * codes.abs().flatten(1).sum(1)

    def largest_sparsity(self) -> PerImage:
        """The lambda from which on the codes of an image are all zero: max |D^T x|."""
        return correlate(self.filters, self.images).abs().flatten(1).amax(1)

    def kkt_residual(self, codes: Codes) -> PerImage:
        """How far `codes` are from optimal, per image, in units of lambda; 0 exactly at an optimum.

        The optimality conditions are D^T (x - D z) = lambda sign(z) where z is not zero, and at most lambda in
        magnitude elsewhere; the largest violation is returned.
        """
        gradient = correlate(self.filters, self.images - convolve(self.filters, codes))
        violation = torch.where(
            codes == 0,
            (gradient.abs() - self.sparsity).clamp_min(0),
            (gradient - self.sparsity * codes.sign()).abs(),
        )
        return violation.flatten(1).amax(1) / (self.sparsity or 1.0)
