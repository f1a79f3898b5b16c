"""The convolution of Eq. (2), sum_k f_{k,c} (*) z_k, and its adjoint.

The boundary is circular and a filter's origin is its first pixel (SPORCO's convention): an atom placed at pixel n
covers the pixels n .. n + S - 1, wrapped around.
"""

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Codes, CodeSpectra, Filters, FilterSpectra, Images, Spectra


def to_spectra(images: Images) -> Spectra:
    """The half spectra of real maps, `B C H W` -> complex `B C H W//2+1`."""
    if len(images) == 0:  # which the FFT refuses
        empty = images[..., : images.shape[-1] // 2 + 1]
        return torch.complex(empty, empty)
    return torch.fft.rfft2(images)


def from_spectra(spectra: Spectra, height: int, width: int) -> Images:
    """The real maps `B C H W` of half spectra; the inverse of `to_spectra`."""
    if len(spectra) == 0:
        return spectra.real.new_zeros(*spectra.shape[:2], height, width)
    return torch.fft.irfft2(spectra, s=(height, width))


def filter_spectra(filters: Filters, height: int, width: int) -> FilterSpectra:
    """The half spectra of filters `K C S S`, zero-padded to `height` x `width` pixels (at least S each)."""
    return torch.fft.rfft2(filters, s=(height, width))


def synthesise(codes_hat: CodeSpectra, filters_hat: FilterSpectra) -> Spectra:
    """D z, the sum over k of f_{k,c} z_k at every frequency: `B K H W'` -> `B C H W'`."""
    return torch.stack([(channel * codes_hat).sum(1) for channel in filters_hat.unbind(1)], 1)


def analyse(images_hat: Spectra, filters_hat: FilterSpectra) -> CodeSpectra:
    """D^H x, the sum over c of conj(f_{k,c}) x_c at every frequency: `B C H W'` -> `B K H W'`."""
    channels = zip(filters_hat.conj().unbind(1), images_hat.unbind(1), strict=True)
    products = [channel * image.unsqueeze(1) for channel, image in channels]
    return products[0] if len(products) == 1 else torch.stack(products).sum(0)


def maps_together(images: Tensor, filters: int) -> int:
    """How many of K maps to take at a time for a batch of images, or maps, `B _ H W`.

    On a CPU few enough that what is made of them stays in the cache; on a GPU all.
    """
    if images.device.type != "cpu":
        return filters
    fitting = 2**17 // max(1, images.shape[0] * images.shape[-2] * images.shape[-1])
    return max(16, fitting // 16 * 16)  # a convolution computes sixteen channels in the time of one


def wrap_around(images: Images, size: int) -> Float[Tensor, "batch channels _ _"]:
    """Images `B C H W` with their first S - 1 rows and columns again at the end."""
    return F.pad(images, (0, size - 1, 0, size - 1), mode="circular")


def convolve(filters: Filters, codes: Codes) -> Images:
    """sum_k f_{k,c} (*) z_k (Eq. 2): filters `K C S S` and codes `B K H W` to images `B C H W`.

    Args:
        filters: f, `K C S S`.
        codes: z, `B K H W`.

    Examples:
        The adjoint identity, in one number:

        >>> import torch
        >>> from quasinat.sparse_coding import convolve, correlate
        >>> draw = torch.Generator().manual_seed(0)
        >>> filters, codes, images = (
        ...     torch.randn(*shape, generator=draw, dtype=torch.float64)
        ...     for shape in ((4, 3, 5, 5), (2, 4, 8, 8), (2, 3, 8, 8))
        ... )
        >>> left = (convolve(filters, codes) * images).sum()
        >>> right = (codes * correlate(filters, images)).sum()
        >>> bool((left - right).abs() < 1e-10)
        True
    """
    height, width = codes.shape[-2:]
    together = maps_together(codes, len(filters))
    parts = zip(codes.split(together, 1), filters.split(together), strict=True)
    spectra = [synthesise(to_spectra(z), filter_spectra(f, height, width)) for z, f in parts]
    return from_spectra(reduce(torch.add, spectra), height, width)


def correlate(filters: Filters, images: Images) -> Codes:
    """The adjoint of `convolve`: <convolve(f, z), x> = <z, correlate(f, x)>. Images `B C H W` to codes `B K H W`.

    On a CPU it is computed in space, which is two to eight times as fast there; on a GPU, whose convolutions may round
    to TF32, by Fourier transforms.

    Args:
        filters: f, `K C S S`.
        images: x, `B C H W`.

    Examples:
        >>> import torch
        >>> from quasinat.sparse_coding import correlate
        >>> image = torch.zeros(1, 1, 3, 3)
        >>> image[0, 0, 1, 1] = 1
        >>> correlate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), image)[0, 0, :2, :2]  # mirrored around the pixel
        tensor([[4., 3.],
                [2., 1.]])
    """
    if images.device.type == "cpu":
        return F.conv2d(wrap_around(images, filters.shape[-1]), filters)
    height, width = images.shape[-2:]
    spectra = analyse(to_spectra(images), filter_spectra(filters, height, width))
    return from_spectra(spectra, height, width)
