"""The dictionary step: never worse, always on the constraint, and right where the answer is known."""

from itertools import pairwise

import pytest
import torch

from quasinat.sparse_coding import (
    Constraint,
    SparseCodingProblem,
    Statistics,
    convolve,
    filter_update,
    statistics,
    update_filters,
)
from quasinat.sparse_coding.filter_update import largest_eigenvalue
from quasinat.sparse_coding.proximal import project_filters

from .conftest import problem_of


def sparse_codes(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random codes of which 5 % are not zero."""
    codes = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (codes * (torch.rand(shape, generator=generator) < 0.05)).to(dtype)


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize("constraint", ["joint", "per-channel", "at-most-one"])
@pytest.mark.parametrize("seed", range(4))
def test_never_raises_the_fidelity_and_keeps_the_constraint(constraint: Constraint, zero_mean: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3, 2, 12, 10, generator=generator, dtype=torch.float64)
    codes = sparse_codes(generator, 3, 4, 12, 10) * 10 ** (seed - 1)
    filters = torch.randn(4, 2, 4, 4, generator=generator, dtype=torch.float64)
    filters = project_filters(filters, constraint, zero_mean=zero_mean)
    sums = statistics(codes, images, 4)
    values = []
    for steps in (0, 1, 2, 5, 40):
        updated = update_filters(filters, sums, constraint=constraint, zero_mean=zero_mean, steps=steps)
        values.append(float(SparseCodingProblem(images, updated, 0.1).fidelity(codes).sum()))
        again = project_filters(updated, constraint, zero_mean=zero_mean)
        torch.testing.assert_close(updated, again, rtol=0, atol=1e-12)
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(values))
    assert values[-1] < values[0]


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_a_step_that_is_too_long_is_mended(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Lipschitz constant is an estimate from below: where the fidelity would rise, it is doubled."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(3, 2, 12, 10, generator=generator, dtype=torch.float64)
    codes = sparse_codes(generator, 3, 4, 12, 10)
    filters = project_filters(torch.randn(4, 2, 4, 4, generator=generator, dtype=torch.float64), "joint")
    sums = statistics(codes, images, 4)
    best = float(sums.fidelity(update_filters(filters, sums, steps=400)))
    exact = largest_eigenvalue(sums, filters)
    monkeypatch.setattr(filter_update, "largest_eigenvalue", lambda *_: share * exact)
    previous = float(sums.fidelity(filters))
    for steps in (1, 3, 10, 30, 100):
        value = float(sums.fidelity(update_filters(filters, sums, steps=steps)))
        assert value <= previous + 1e-9
        previous = value
    assert previous == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("constraint", ["joint", "per-channel"])
def test_finds_the_filters_that_made_the_images(constraint: Constraint, generator: torch.Generator) -> None:
    truth = torch.randn(4, 2, 5, 5, generator=generator, dtype=torch.float64)
    truth = project_filters(truth, constraint)
    codes = sparse_codes(generator, 6, 4, 20, 20)
    images = convolve(truth, codes)
    start = torch.randn(4, 2, 5, 5, generator=generator, dtype=torch.float64)
    start = project_filters(start, constraint)
    found = update_filters(start, statistics(codes, images, 5), constraint=constraint, steps=300)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-5)


def test_without_active_codes_the_filters_stay() -> None:
    problem = problem_of(channels=2)
    sums = statistics(torch.zeros(1, 6, 16, 16, dtype=torch.float64), problem.images, 5)
    assert update_filters(problem.filters, sums).equal(problem.filters)


def test_the_eigenvalue_is_the_operators(generator: torch.Generator) -> None:
    codes = sparse_codes(generator, 3, 3, 10, 10)
    sums = statistics(codes, torch.zeros(3, 1, 10, 10, dtype=torch.float64), 3)
    units = torch.eye(27, dtype=torch.float64).view(27, 3, 1, 3, 3)
    matrix = torch.stack([sums.gram(unit).flatten() for unit in units])
    torch.testing.assert_close(matrix, matrix.T)
    exact = float(torch.linalg.eigvalsh(matrix)[-1])
    estimate = largest_eigenvalue(sums, units[0])
    assert 0.98 * exact < estimate <= exact * (1 + 1e-9)
    assert largest_eigenvalue(sums, units[0], iterations=100) == pytest.approx(exact, rel=1e-9)


def test_the_eigenvalue_of_a_multiple_of_the_identity() -> None:
    """Whose first iteration leaves nothing to go on with."""
    codes = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    codes[0, 0, 2, 3] = 3
    sums = statistics(codes, torch.zeros(1, 1, 6, 6, dtype=torch.float64), 3)
    assert largest_eigenvalue(sums, torch.zeros(1, 1, 3, 3, dtype=torch.float64)) == pytest.approx(9, rel=1e-12)


def test_one_convolution_a_step(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    problem = problem_of(channels=2)
    sums = statistics(sparse_codes(generator, 1, 6, 16, 16), problem.images, 5)
    calls = []
    gram = Statistics.gram
    monkeypatch.setattr(Statistics, "gram", lambda *args: calls.append(1) or gram(*args))
    update_filters(problem.filters, sums, steps=0)
    before = len(calls)
    update_filters(problem.filters, sums, steps=20)
    assert len(calls) == 2 * before + 20
