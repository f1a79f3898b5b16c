"""The convolution of Eq. (2), sum_k f_{k,c} (*) z_k, and its adjoint, in the Fourier domain.

The boundary is circular and a filter's origin is its first pixel (SPORCO's convention): an atom placed at pixel n
covers the pixels n .. n + S - 1, wrapped around.
"""

import torch

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


def convolve(filters: Filters, codes: Codes) -> Images:
    """sum_k f_{k,c} (*) z_k (Eq. 2): filters `K C S S` and codes `B K H W` to images `B C H W`."""
    height, width = codes.shape[-2:]
    spectra = synthesise(to_spectra(codes), filter_spectra(filters, height, width))
    return from_spectra(spectra, height, width)


def correlate(filters: Filters, images: Images) -> Codes:
    """The adjoint of `convolve`: <convolve(f, z), x> = <z, correlate(f, x)>. Images `B C H W` to codes `B K H W`."""
    height, width = images.shape[-2:]
    spectra = analyse(to_spectra(images), filter_spectra(filters, height, width))
    return from_spectra(spectra, height, width)
