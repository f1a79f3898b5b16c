"""The sufficient statistics against automatic differentiation of the fidelity they stand for."""

import pytest
import torch
from torch import Tensor

from quasinat.sparse_coding import SparseCodingProblem, Statistics, statistics

CASES = [(1, 4, 3, (9, 12)), (3, 5, 4, (8, 8)), (2, 3, 5, (5, 7)), (1, 2, 1, (4, 4))]


def drawn(channels: int, filters: int, size: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Random filters, codes and images, unrelated to each other."""
    generator = torch.Generator().manual_seed(7)

    def normal(*of: int) -> Tensor:
        return torch.randn(*of, generator=generator, dtype=torch.float64)

    return normal(filters, channels, size, size), normal(4, filters, *shape), normal(4, channels, *shape)


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), CASES)
def test_gradient_and_value_are_the_fidelitys(channels: int, filters: int, size: int, shape: tuple[int, int]) -> None:
    f, z, x = drawn(channels, filters, size, shape)
    f.requires_grad_()
    fidelity = SparseCodingProblem(x, f, 0.1).fidelity(z).sum()
    (gradient,) = torch.autograd.grad(fidelity, f)
    sums = statistics(z, x, size)
    torch.testing.assert_close(sums.gradient(f.detach()), gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sums.fidelity(f.detach()), fidelity.detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), CASES)
def test_batches_add_up(channels: int, filters: int, size: int, shape: tuple[int, int]) -> None:
    _, z, x = drawn(channels, filters, size, shape)
    whole, parts = statistics(z, x, size), statistics(z[:1], x[:1], size) + statistics(z[1:], x[1:], size)
    assert isinstance(parts, Statistics)
    for name in ("correlations", "cross", "energy"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


def test_images_of_different_sizes_add_up() -> None:
    f, z, x = drawn(2, 3, 3, (6, 8))
    _, more_z, more_x = drawn(2, 3, 3, (9, 5))
    total = statistics(z, x, 3) + statistics(more_z, more_x, 3)
    both = SparseCodingProblem(x, f, 0.1).fidelity(z).sum() + SparseCodingProblem(more_x, f, 0.1).fidelity(more_z).sum()
    torch.testing.assert_close(total.fidelity(f), both, rtol=1e-10, atol=0)


def test_the_size_does_not_grow_with_the_set() -> None:
    _, z, x = drawn(3, 5, 4, (8, 8))
    assert statistics(z, x, 4).correlations.shape == statistics(z[:1], x[:1], 4).correlations.shape == (5, 5, 7, 7)
