"""Maps carried in pairs: a round trip, and the same convolution as map by map."""

import pytest
import torch

from quasinat.sparse_coding.convolution import analyse, convolve, correlate, synthesise
from quasinat.sparse_coding.pairs import (
    from_pair_spectra,
    from_pairs,
    pair_filter_spectra,
    real_part,
    to_pair_spectra,
    to_pairs,
)


@pytest.mark.parametrize("filters", [1, 2, 5, 8])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (9, 5)])
def test_pairs_convolve_and_correlate_as_single_maps_do(filters: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(filters)
    codes = torch.randn(3, filters, height, width, generator=generator, dtype=torch.float64)
    atoms = torch.randn(filters, 2, 4, 4, generator=generator, dtype=torch.float64)
    images = torch.randn(3, 2, height, width, generator=generator, dtype=torch.float64)
    paired_hat = pair_filter_spectra(atoms, height, width)
    assert from_pairs(to_pairs(codes), filters).equal(codes)

    spectra = real_part(synthesise(to_pair_spectra(to_pairs(codes)), paired_hat))
    synthesised = torch.fft.ifft2(spectra)
    torch.testing.assert_close(synthesised.real, convolve(atoms, codes), rtol=1e-12, atol=1e-12)
    assert synthesised.imag.abs().max() < 1e-12

    analysed = from_pair_spectra(analyse(torch.fft.fft2(images), paired_hat))
    torch.testing.assert_close(from_pairs(analysed, filters), correlate(atoms, images), rtol=1e-12, atol=1e-12)
    if filters % 2:  # the map that keeps a lone one company stays empty
        assert analysed[:, -1, ..., 1].abs().max() < 1e-12
