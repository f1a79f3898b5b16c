"""Eq. (2) of the paper with the filters fixed, also known as convolutional basis pursuit denoising (CBPDN)."""

import math
from dataclasses import KW_ONLY, dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import CodesBeyond, Filters, Images, PerImage, PerImageBool
from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding.boundary import Boundary, extend, margins
from quasinat.sparse_coding.convolution import convolve, correlate
from quasinat.sparse_coding.optimality import kkt_violation


@dataclass(frozen=True)
class SparseCodingProblem:
    """min over z of 1/2 sum_c || w_c (sum_k f_{k,c} (*) z_k - x_c) ||^2 + lambda sum_k || z_k ||_1, for each image.

    This is Eq. (2), whose weights w are all one and whose boundary is circular. With another boundary it is Eq. (2) of
    the images continued beyond their frame (`boundary.py`): the codes live on that larger domain, and so do the
    objective and the conditions of optimality; only a `Solution`'s reconstruction is cropped to the frame.

    Args:
        images: x, `B C H W` of float32 or float64, any real values; each side at least the filters' size.
        filters: f, `K C S S`, of the same dtype, device and channels.
        sparsity: lambda >= 0, in the images' units.
        boundary: what is outside the frame: "circular", "reflect" or "zero".
        mask: w, finite weights >= 0 that broadcast to `B C H W`, or booleans; `None` for ones. What an image holds
            under a weight of zero does not matter; it may be NaN.
        strict: whether an image with NaN or infinity is an error. If not, it is left unsolved (`not_finite`, zero codes
            and NaN everywhere else), and the others are solved as without it.

    Raises:
        InputError: shapes, dtypes or values that cannot be coded; names them.
        UsageError: lambda is negative or not a number, or the boundary is unknown.

    Examples:
        >>> import torch
        >>> from quasinat.sparse_coding import SparseCodingProblem
        >>> problem = SparseCodingProblem(torch.full((1, 1, 4, 4), 0.5), torch.ones(1, 1, 2, 2) / 2, sparsity=0.1)
        >>> problem.codes_shape(), float(problem.objective(torch.zeros(1, 1, 4, 4)))  # half of the image's energy
        ((1, 1, 4, 4), 2.0)
        >>> float(problem.largest_sparsity())  # from which on all codes are zero
        1.0
    """

    images: Images
    filters: Filters
    sparsity: float
    _: KW_ONLY
    boundary: Boundary = "circular"
    mask: Tensor | None = None
    strict: bool = True

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
        if self.images.dtype not in (torch.float32, torch.float64):
            problem = f"images of {self.images.dtype} are not coded"
            raise InputError(problem, "convert them and the filters to float32 or float64")
        if not (self.sparsity >= 0 and math.isfinite(self.sparsity)):
            raise UsageError(f"sparsity {self.sparsity} is not a finite number >= 0", "the paper uses 0.2")
        margins(self.boundary, size)
        _check_mask(self.mask, self.images)
        readable = self.readable()
        if self.strict and not bool(readable.all()):
            raise InputError(
                f"image {int((~readable).nonzero()[0])} holds NaN or infinity", "leave it out or repair it"
            )

    def readable(self) -> PerImageBool:
        """Which images are finite wherever their weight is not zero."""
        return self.circular_images().isfinite().flatten(1).all(1)

    def weights(self) -> Images | None:
        """The mask in the images' dtype, `B C H W`; `None` where every weight is one."""
        return None if self.mask is None else self.mask.to(self.images).expand_as(self.images)

    def circular_images(self) -> Float[Tensor, "batch channels _ _"]:
        """The images continued beyond their frame as the boundary says; zero where the weight is zero."""
        weights = self.weights()
        seen = self.images if weights is None else torch.where(weights == 0, 0, self.images)
        return extend(seen, self.boundary, self.filters.shape[-1])

    def circular(self) -> "SparseCodingProblem":
        """The problem with a circular boundary that is solved: images and weights on the extended domain."""
        weights = self.weights()
        if self.boundary == "circular" and weights is None:
            return self
        if weights is not None:
            weights = extend(weights, self.boundary, self.filters.shape[-1], outside=1.0)
        return replace(self, images=self.circular_images(), mask=weights, boundary="circular")

    def select(self, rows: PerImageBool | slice) -> "SparseCodingProblem":
        """The same for some of the images only."""
        weights = self.weights()
        return replace(self, images=self.images[rows], mask=None if weights is None else weights[rows])

    def codes_shape(self) -> tuple[int, int, int, int]:
        """The shape of the codes, on the extended domain."""
        added = sum(margins(self.boundary, self.filters.shape[-1]))
        batch, _, height, width = self.images.shape
        return batch, len(self.filters), height + added, width + added

    def residual(self, codes: CodesBeyond) -> Float[Tensor, "batch channels _ _"]:
        """w (x - D z), per pixel of the extended domain."""
        problem = self.circular()
        residual = problem.images - convolve(self.filters, codes)
        return residual if problem.mask is None else problem.mask * residual

    def gradient(self, residual: Float[Tensor, "batch channels _ _"]) -> Float[Tensor, "batch filters _ _"]:
        """D^T (w r): minus the gradient of the fidelity in z, of a `residual`."""
        mask = self.circular().mask
        return correlate(self.filters, residual if mask is None else mask * residual)

    def fidelity(self, codes: CodesBeyond) -> PerImage:
        """1/2 sum_c || w_c (sum_k f_{k,c} (*) z_k - x_c) ||^2, per image."""
        return self.residual(codes).square().flatten(1).sum(1) / 2

    def objective(self, codes: CodesBeyond) -> PerImage:
        """The value of Eq. (2) at `codes`, per image."""
        return self.fidelity(codes) + self.sparsity * codes.abs().flatten(1).sum(1)

    def largest_sparsity(self) -> PerImage:
        """The lambda from which on the codes of an image are all zero: max |D^T w^2 x|."""
        problem = self.circular()
        weighted = problem.images if problem.mask is None else problem.mask * problem.images
        return problem.gradient(weighted).abs().flatten(1).amax(1)

    def kkt_residual(self, codes: CodesBeyond) -> PerImage:
        """How far `codes` are from optimal, per image, in units of lambda; 0 exactly at an optimum.

        See `optimality.kkt_violation`.
        """
        return kkt_violation(self.gradient(self.residual(codes)), codes, self.sparsity)


def _check_mask(mask: Tensor | None, images: Images) -> None:
    if mask is None:
        return
    try:
        torch.broadcast_to(mask, images.shape)
    except RuntimeError:
        raise InputError(
            f"a mask of shape {tuple(mask.shape)} does not fit images of {tuple(images.shape)}",
            "give one weight per pixel, as B C H W, B 1 H W or H W",
        ) from None
    if mask.is_complex() or not bool((mask.isfinite() & (mask >= 0)).all()):
        raise InputError("the mask has weights that are negative, NaN, infinite or complex", "use weights from 0 to 1")
