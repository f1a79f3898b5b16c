"""The convolution against a loop, and its adjoint against the definition of one."""

import pytest
import torch

from quasinat.sparse_coding import convolve, correlate

from .conftest import as_matrix, problem_of, synthesis

SHAPES = [(1, 1, 1, (5, 5)), (1, 4, 3, (8, 8)), (3, 5, 4, (9, 7)), (2, 3, 5, (5, 12)), (3, 2, 8, (8, 11))]


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), SHAPES)
def test_convolve_is_the_brute_force_loop(channels: int, filters: int, size: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(filters, channels, size, size, generator=generator, dtype=torch.float64)
    z = torch.randn(2, filters, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(convolve(f, z), synthesis(f, z), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), SHAPES)
def test_correlate_is_the_adjoint(channels: int, filters: int, size: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    f = torch.randn(filters, channels, size, size, generator=generator, dtype=torch.float64)
    z = torch.randn(2, filters, *shape, generator=generator, dtype=torch.float64)
    x = torch.randn(2, channels, *shape, generator=generator, dtype=torch.float64)
    left, right = (convolve(f, z) * x).sum(), (z * correlate(f, x)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    matrix = as_matrix(f, *shape)
    torch.testing.assert_close(correlate(f, x).flatten(1), x.flatten(1) @ matrix, rtol=0, atol=1e-11)


def test_an_atom_starts_at_its_pixel_and_wraps_around() -> None:
    atom = torch.arange(1.0, 5.0, dtype=torch.float64).view(1, 1, 2, 2)
    codes = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    codes[0, 0, 2, 1] = 1
    expected = torch.tensor([[0.0, 3, 4], [0, 0, 0], [0, 1, 2]], dtype=torch.float64)
    torch.testing.assert_close(convolve(atom, codes)[0, 0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_batch_and_the_dtype_are_kept(dtype: torch.dtype) -> None:
    problem = problem_of(channels=3, dtype=dtype)
    nothing = correlate(problem.filters, problem.images[:0])
    assert nothing.shape == (0, 6, 16, 16)
    assert nothing.dtype == dtype
    assert convolve(problem.filters, nothing).shape == (0, 3, 16, 16)
    assert correlate(problem.filters, problem.images).dtype == dtype
