"""The Woodbury solve against the normal equations, in the Fourier domain and as one dense system."""

import pytest
import torch

from quasinat.sparse_coding.convolution import filter_spectra, from_spectra, to_spectra
from quasinat.sparse_coding.frequency_solve import correction, relative_residual, woodbury_kernel
from quasinat.sparse_coding.pairs import (
    from_pair_spectra,
    from_pairs,
    pair_filter_spectra,
    to_pair_spectra,
    to_pairs,
)

from .conftest import as_matrix, problem_of


@pytest.mark.parametrize(
    ("channels", "filters", "size", "shape", "penalty"),
    [(1, 4, 3, (6, 6), 1.0), (3, 5, 4, (7, 6), 0.3), (2, 1, 5, (5, 9), 1e-3), (3, 8, 8, (32, 32), 5.0)],
)
def test_solves_the_normal_equations(
    channels: int, filters: int, size: int, shape: tuple[int, int], penalty: float
) -> None:
    problem = problem_of(images=2, channels=channels, filters=filters, size=size, shape=shape)
    v = torch.randn(2, filters, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    v_hat, images_hat = to_spectra(v), to_spectra(problem.images)
    filters_hat = filter_spectra(problem.filters, *shape)
    kernel = woodbury_kernel(torch.fft.fft2(problem.filters, s=shape), penalty)
    pairs_hat = to_pair_spectra(to_pairs(v))
    d_hat = correction(pairs_hat, torch.fft.fft2(problem.images), pair_filter_spectra(problem.filters, *shape), kernel)
    x_hat = v_hat + to_spectra(from_pairs(from_pair_spectra(d_hat), filters))
    assert relative_residual(x_hat, v_hat, images_hat, filters_hat, penalty) < 1e-12
    assert relative_residual(x_hat * 1.001, v_hat, images_hat, filters_hat, penalty) > 1e-4  # it does measure
    if shape[0] * shape[1] * filters <= 400:
        matrix = as_matrix(problem.filters, *shape)
        system = matrix.T @ matrix + penalty * torch.eye(matrix.shape[1], dtype=torch.float64)
        right = problem.images.flatten(1) @ matrix + penalty * v.flatten(1)
        dense = torch.linalg.solve(system, right.T).T
        torch.testing.assert_close(from_spectra(x_hat, *shape).flatten(1), dense, rtol=1e-9, atol=1e-9)
