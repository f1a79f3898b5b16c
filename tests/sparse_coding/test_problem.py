"""Eq. (2) against dense matrices: objective, optimality conditions, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding import ADMM, Result, SparseCodingProblem, solve

from .conftest import as_matrix, problem_of
from .unchecked import unchecked


def test_objective_and_its_parts(generator: torch.Generator) -> None:
    problem = problem_of(images=2, channels=2, filters=3, size=3, shape=(6, 7), sparsity=0.3)
    codes = torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float64)
    matrix = as_matrix(problem.filters, 6, 7)
    residual = problem.images.flatten(1) - codes.flatten(1) @ matrix.T
    fidelity = residual.square().sum(1) / 2
    torch.testing.assert_close(problem.fidelity(codes), fidelity)
    torch.testing.assert_close(problem.objective(codes), fidelity + 0.3 * codes.abs().flatten(1).sum(1))
    largest = (problem.images.flatten(1) @ matrix).abs().amax(1)
    torch.testing.assert_close(problem.largest_sparsity(), largest)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 3),
    filters=st.integers(1, 5),
    size=st.integers(1, 5),
    height=st.integers(5, 9),
    width=st.integers(5, 9),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 99),
)
def test_solutions_meet_the_optimality_conditions(
    channels: int, filters: int, size: int, height: int, width: int, share: float, seed: int
) -> None:
    """|D^T r| <= lambda everywhere and D^T r = lambda sign(z) on the support, r the residual, D a dense matrix."""
    drawn = problem_of(channels=channels, filters=filters, size=size, shape=(height, width), seed=seed)
    problem = SparseCodingProblem(drawn.images, drawn.filters, share * float(drawn.largest_sparsity()))
    solution = solve(problem, ADMM(tolerance=1e-7, max_steps=20000))
    assert solution.result.tolist() == [Result.converged]
    codes = solution.codes.flatten()
    matrix = as_matrix(problem.filters, height, width)
    gradient = matrix.T @ (problem.images.flatten() - matrix @ codes) / problem.sparsity
    assert gradient.abs().max() <= 1 + 1e-4
    support = codes != 0
    assert support.any()
    torch.testing.assert_close(gradient[support], codes[support].sign(), rtol=0, atol=1e-4)
    violation = torch.where(support, (gradient - codes.sign()).abs(), (gradient.abs() - 1).clamp_min(0)).max()
    torch.testing.assert_close(problem.kkt_residual(solution.codes)[0], violation, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(solution.reconstruction.flatten(), matrix @ codes, rtol=0, atol=1e-10)


def test_the_residual_sees_codes_that_are_not_optimal() -> None:
    problem = problem_of()
    solution = solve(problem, ADMM(tolerance=1e-6, max_steps=5000))
    assert float(problem.kkt_residual(solution.codes)) < 1e-4
    assert float(problem.kkt_residual(solution.codes * 1.1)) > 1e-2
    assert float(problem.kkt_residual(torch.zeros_like(solution.codes))) > 1


def test_what_cannot_be_coded_is_refused_with_a_remedy() -> None:
    images, filters = torch.rand(3, 3, 9, 12), torch.rand(4, 3, 5, 5)
    with unchecked(), pytest.raises(InputError, match="images have 1 channels and the filters 3; convert"):
        SparseCodingProblem(images[:, :1], filters, 0.2)
    with pytest.raises(InputError, match=r"4 x 12 pixels are smaller than the filters \(5 x 5\); use larger"):
        SparseCodingProblem(images[:, :, :4], filters, 0.2)
    with pytest.raises(InputError, match=r"float64 and filters of torch.float32; convert"):
        SparseCodingProblem(images.double(), filters, 0.2)
    for value in (torch.nan, torch.inf):
        broken = images.clone()
        broken[1, 2, 3, 4] = value
        with pytest.raises(InputError, match="image 1 holds NaN or infinity; leave it out"):
            SparseCodingProblem(broken, filters, 0.2)
    for sparsity in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"finite number >= 0; the paper uses 0\.2"):
            SparseCodingProblem(images, filters, sparsity)
