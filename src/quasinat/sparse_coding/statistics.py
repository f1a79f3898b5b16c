"""Sufficient statistics of codes and images: all that a filter update needs, of a size that does not grow with the set.

With the codes fixed, the fidelity of Eq. (2) is a quadratic in the filters:

    1/2 sum_c ||sum_k f_{k,c} (*) z_k - x_c||^2 = 1/2 <f, A f> - <f, b> + 1/2 ||x||^2,

where A is given by the cross-correlations of the maps at lags below S, and b by those of the maps with the image.
"""

from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Codes, Filters, Images
from quasinat.errors import InputError
from quasinat.parallel import summed
from quasinat.sparse_coding._kernels import binding
from quasinat.sparse_coding.convolution import to_spectra
from quasinat.sparse_coding.coordinate_descent import available, to_kernel

PIXELS_AT_A_TIME = 64 * 32 * 32
# The kernel's work grows with the square of the density times that of S, the transforms' with neither.
DENSE_FROM = 0.4


@dataclass(frozen=True)
class Statistics:
    """Sums over images; those of two sets of images add up.

    Attributes:
        correlations: sum_n z_k[n + d] z_j[n] for lags |d| < S on both axes, `K K 2S-1 2S-1`.
        cross: sum_n x_c[n + m] z_k[n] for m in the filter's support, `K C S S`.
        energy: sum ||x||^2.
    """

    correlations: Float[Tensor, "filters filters lags lags"]
    cross: Filters
    energy: Float[Tensor, ""]

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(self.correlations + other.correlations, self.cross + other.cross, self.energy + other.energy)

    def across_processes(self) -> "Statistics":
        """The statistics of the images of all processes."""
        return Statistics(summed(self.correlations), summed(self.cross), summed(self.energy))

    def scaled(self, factor: float) -> "Statistics":
        """The statistics of a set that counts `factor` times."""
        return Statistics(self.correlations * factor, self.cross * factor, self.energy * factor)

    def gram(self, filters: Filters) -> Filters:
        """A f: the quadratic's operator applied to filters `K C S S`."""
        size = filters.shape[-1]
        return F.conv2d(filters.transpose(0, 1), self.correlations, padding=size - 1).transpose(0, 1)

    def gradient(self, filters: Filters) -> Filters:
        """The gradient of the fidelity with respect to the filters, A f - b."""
        return self.gram(filters) - self.cross

    def fidelity(self, filters: Filters) -> Float[Tensor, ""]:
        """1/2 sum ||D z - x||^2 over all the images seen, for these filters."""
        return ((self.gram(filters) / 2 - self.cross) * filters).sum() + self.energy / 2


def no_statistics(filters: Filters) -> Statistics:
    """Those of no images at all, for filters like these."""
    count, lags = len(filters), 2 * filters.shape[-1] - 1
    return Statistics(filters.new_zeros(count, count, lags, lags), torch.zeros_like(filters), filters.new_zeros(()))


def statistics(codes: Codes, images: Images, size: int) -> Statistics:
    """The sufficient statistics of codes `B K H W` and images `B C H W` for filters of `size` S.

    Circular boundary and origin as in `convolution`. Batches of different image sizes may be summed. Sparse codes on a
    CPU go through a compiled kernel (where there is one), which visits the pairs of neighbouring entries only and whose
    numbers do not depend on the number of threads; others go through Fourier transforms, some images at a time. Neither
    way's memory grows with the batch.

    Args:
        codes: dense, or a sparse COO tensor.
        images: what was coded, of the codes' dtype and device.
        size: S.

    Raises:
        InputError: codes and images are not of the same images.
    """
    if (len(codes), *codes.shape[2:]) != (len(images), *images.shape[2:]):
        raise InputError(
            f"the codes have shape {tuple(codes.shape)}, the images {tuple(images.shape)}",
            "pass the codes of these images, with as many images, rows and columns",
        )
    if _for_kernel(codes, images, size):
        threads = torch.get_num_threads()
        return Statistics(*binding.statistics(images.contiguous(), to_kernel(codes), codes.shape[1], size, threads))
    together = max(1, PIXELS_AT_A_TIME // (images.shape[-2] * images.shape[-1]))
    rows = torch.arange(len(images), device=images.device).split(together)
    parts = ((codes.index_select(0, part), images[part]) for part in rows)
    return reduce(add, (_dense(z.to_dense() if z.is_sparse else z, x, size) for z, x in parts))


def _for_kernel(codes: Codes, images: Images, size: int) -> bool:
    """Whether the compiled kernel can make these statistics, and faster than Fourier transforms would."""
    return (
        codes.layout == torch.sparse_coo
        and codes.device.type == images.device.type == "cpu"
        and codes.dtype == images.dtype
        and images.dtype in binding.SUFFIXES
        and not (torch.is_grad_enabled() and (codes.requires_grad or images.requires_grad))
        and codes._nnz() * size <= DENSE_FROM * codes.numel()
        and available() is None
    )


def _dense(codes: Codes, images: Images, size: int) -> Statistics:
    height, width = codes.shape[-2:]
    codes_hat, images_hat = to_spectra(codes), to_spectra(images)
    rows, columns = _lags(size, height), _lags(size, width)
    at_frequency = codes_hat.permute(2, 3, 1, 0)  # H W' K B
    auto_hat = (at_frequency @ at_frequency.mH.resolve_conj()).permute(2, 3, 0, 1)  # z_k conj(z_j)
    auto = torch.fft.irfft2(auto_hat, s=(height, width))[..., rows, :][..., columns]
    cross_hat = at_frequency.conj().resolve_conj() @ images_hat.permute(2, 3, 0, 1)  # conj(z_k) x_c
    cross = torch.fft.irfft2(cross_hat.permute(2, 3, 0, 1), s=(height, width))[..., :size, :size]
    return Statistics(auto.contiguous(), cross.contiguous(), images.square().sum())


def _lags(size: int, length: int) -> Tensor:
    """Where the lags -(S-1) .. S-1 of a circular correlation lie."""
    return torch.arange(1 - size, size) % length
