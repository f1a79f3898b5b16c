"""Two real maps carried as one complex map: half the transforms, and none of the copies that half spectra need.

With z = z_{2j} + i z_{2j+1} and f = f_{2j} - i f_{2j+1}, the real part of f (*) z is f_{2j} (*) z_{2j} + f_{2j+1} (*)
z_{2j+1}: Eq. (2) with K/2 complex filters. Its adjoint takes a real image to conj(f) correlated with it, whose real and
imaginary parts are the two maps. The results are those of K real maps to rounding. A lone last filter is paired with
zero.
"""

import torch

from quasinat.arrays import Codes, Filters, Images, PairFilterSpectra, Pairs, PairSpectra, Spectra


def to_pairs(codes: Codes) -> Pairs:
    """Codes `B K H W` as pairs `B ceil(K/2) H W 2`, map 2j beside map 2j + 1."""
    batch, filters, height, width = codes.shape
    pairs = codes.new_zeros(batch, (filters + 1) // 2, height, width, 2)
    pairs[..., 0] = codes[:, 0::2]
    pairs[:, : filters // 2, ..., 1] = codes[:, 1::2]
    return pairs


def from_pairs(pairs: Pairs, filters: int) -> Codes:
    """The codes `B K H W` of pairs; the inverse of `to_pairs`."""
    return pairs.movedim(-1, 2).flatten(1, 2)[:, :filters].contiguous()


def pair_filter_spectra(filters: Filters, height: int, width: int) -> PairFilterSpectra:
    """The full spectra of f_{2j} - i f_{2j+1}, `ceil(K/2) C H W`."""
    odd = torch.zeros_like(filters[0::2])
    odd[: len(filters) // 2] = filters[1::2]
    return torch.fft.fft2(torch.complex(filters[0::2], -odd), s=(height, width))


def image_spectra(images: Images) -> Spectra:
    """The full spectra of real images `B C H W`."""
    return torch.fft.fft2(images) if len(images) else torch.complex(images, images)  # the FFT refuses an empty batch


def to_pair_spectra(pairs: Pairs) -> PairSpectra:
    """The full spectra of the complex maps, `B K/2 H W`."""
    return torch.fft.fft2(torch.view_as_complex(pairs))


def from_pair_spectra(spectra: PairSpectra) -> Pairs:
    """The complex maps of full spectra, as pairs; the inverse of `to_pair_spectra`."""
    return torch.view_as_real(torch.fft.ifft2(spectra))


def real_part(spectra: Spectra) -> Spectra:
    """The full spectra of the real parts of the images behind `spectra`: (X(w) + conj X(-w)) / 2."""
    mirrored = spectra.flip(-2, -1).roll((1, 1), (-2, -1))
    return (spectra + mirrored.conj()) / 2
