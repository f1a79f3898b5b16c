"""What a solution reports: one evaluation for all of it, a certified gap, sparse codes, and failures in words."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quasinat.errors import UsageError
from quasinat.sparse_coding import ADMM, Result, SparseCodingProblem, solve
from quasinat.sparse_coding.coordinate_descent import available
from quasinat.sparse_coding.evaluate import evaluate

from .conftest import as_matrix, problem_of
from .unchecked import unchecked

SOLVERS = ["admm", "auto", *([] if available() else ["coordinate-descent"])]
TIGHT = ADMM(tolerance=1e-6, max_steps=20000)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 3),
    steps=st.sampled_from([0, 1, 3, 10, 40]),
    masked=st.booleans(),
    sparsity=st.sampled_from([0.05, 0.1, 0.5]),
    seed=st.integers(0, 99),
)
def test_the_gap_bounds_the_distance_from_the_optimum(
    channels: int, steps: int, masked: bool, sparsity: float, seed: int
) -> None:
    problem = problem_of(images=2, channels=channels, filters=4, size=3, shape=(7, 8), sparsity=sparsity, seed=seed)
    if masked:
        generator = torch.Generator().manual_seed(seed)
        problem = replace(problem, mask=torch.rand(2, channels, 7, 8, generator=generator, dtype=torch.float64))
    optimum = solve(problem, TIGHT).objective
    solution = solve(problem, ADMM(max_steps=steps, tolerance=0.0))
    assert (solution.objective - optimum <= solution.duality_gap + 1e-9).all()


def test_the_gap_is_the_difference_of_the_two_objectives_and_vanishes_at_the_optimum() -> None:
    problem = problem_of(channels=2, filters=4, size=3, shape=(6, 7))
    solution = solve(problem, ADMM(max_steps=12))
    matrix, codes, x = as_matrix(problem.filters, 6, 7), solution.codes.flatten(), problem.images.flatten()
    residual = x - matrix @ codes
    limit = float(problem.sparsity / (matrix.T @ residual).abs().max())
    duals = [
        float(scale * residual @ x - (scale * residual).square().sum() / 2)
        for scale in torch.linspace(-limit, limit, 2001).tolist()
    ]
    assert float(solution.duality_gap) == pytest.approx(float(solution.objective) - max(duals), rel=1e-3)
    close = solve(problem, TIGHT)
    assert 0 <= float(close.duality_gap) < 1e-4 * float(close.objective)


def test_a_perfect_fit_and_no_lambda_have_gaps_too() -> None:
    problem = problem_of(filters=3, size=3, shape=(6, 6))
    zeros = torch.zeros(1, 3, 6, 6, dtype=torch.float64)
    nothing = replace(problem, images=torch.zeros_like(problem.images))
    assert float(evaluate(nothing, zeros).duality_gap) == 0
    assert float(evaluate(replace(nothing, sparsity=0.0), zeros).duality_gap) == 0
    assert float(evaluate(replace(problem, sparsity=0.0), zeros).duality_gap) >= 0


def test_the_report_is_that_of_the_problem() -> None:
    problem = problem_of(images=3, channels=2)
    solution = solve(problem, ADMM(max_steps=20))
    torch.testing.assert_close(solution.objective, problem.objective(solution.codes))
    torch.testing.assert_close(solution.kkt_residual, problem.kkt_residual(solution.codes))
    report = evaluate(problem, solution.codes.to_sparse())
    torch.testing.assert_close(report.objective, solution.objective)
    torch.testing.assert_close(report.duality_gap, solution.duality_gap)
    assert solution.solver == "admm"
    for name in ("kkt_residual", "duality_gap"):
        assert getattr(solution, name).shape == (3,)
        assert getattr(solution, name).dtype == torch.float64


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_codes_are_the_dense_ones(solver: str) -> None:
    problem = problem_of(images=3, channels=2)
    dense, sparse = (solve(problem, solver, codes=layout) for layout in ("dense", "sparse"))
    assert sparse.codes.is_sparse
    assert sparse.codes.is_coalesced()
    assert sparse.codes.shape == dense.codes.shape
    assert sparse.codes.to_dense().equal(dense.codes)
    assert sparse.density == dense.density == float((dense.codes != 0).double().mean())
    assert 0 < dense.density < 0.5
    assert dense.solver == solver or solver == "auto"
    assert dense.failures == sparse.failures == {}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_images_that_are_not_finite_are_left_unsolved_and_spare_the_others(solver: str, layout: str) -> None:
    problem = problem_of(images=5, channels=2, dtype=torch.float32)
    images = problem.images.clone()
    images[1, 0, 2, 3], images[4, 1, 0, 0] = torch.nan, torch.inf
    loose = replace(problem, images=images, strict=False)
    solution = solve(loose, solver, codes=layout)
    others = torch.tensor([0, 2, 3])
    alone = solve(replace(problem, images=images[others]), solver)
    codes = solution.codes.to_dense() if layout == "sparse" else solution.codes
    assert codes[others].equal(alone.codes)
    for name in ("reconstruction", "objective", "kkt_residual", "duality_gap", "steps", "result"):
        assert getattr(solution, name)[others].equal(getattr(alone, name))
    assert solution.result.tolist() == [0, Result.not_finite, 0, 0, Result.not_finite]
    assert (codes[[1, 4]] == 0).all()
    for name in ("reconstruction", "objective", "kkt_residual", "duality_gap"):
        assert getattr(solution, name)[[1, 4]].isnan().all()
    assert solution.failures == {
        image: f"image {image} holds NaN or infinity; leave it out or repair it" for image in (1, 4)
    }
    warm = solve(loose, solver, start=solution.state)
    assert (warm.steps[others] <= solution.steps[others]).all()
    nothing = solve(replace(loose, images=images[[1, 4]]), solver, codes=layout)
    assert nothing.result.tolist() == [Result.not_finite] * 2
    assert nothing.density == 0


def test_failures_say_what_and_how_to_mend_it() -> None:
    problem = problem_of(images=3, dtype=torch.float32)
    images = problem.images.clone()
    images[1] *= 1e37
    images[2] = 0
    solution = solve(replace(problem, images=images), ADMM(tolerance=1e-9, max_steps=7))
    assert sorted(solution.failures) == [0, 1]
    assert "image 0 is not solved to the tolerance after 7 steps" in solution.failures[0]
    assert "raise max_steps, or the tolerance" in solution.failures[0]
    assert "image 1 overflows torch.float32; scale it down" in solution.failures[1]
    assert solve(problem, ADMM()).failures == {}


def test_a_misspelt_option_names_the_close_match() -> None:
    problem = problem_of()
    with pytest.raises(UsageError, match=r"unknown solver 'adm'; did you mean 'admm'\? Known: auto, admm"):
        solve(problem, "adm")
    with unchecked(), pytest.raises(UsageError, match=r"unknown layout 'sparce' of the codes; did you mean 'sparse'"):
        solve(problem, codes="sparce")  # type: ignore[arg-type]


def test_a_solver_without_masks_is_not_run_on_one() -> None:
    class Other:
        """An iterative solver that has never heard of masks."""

        name, tolerance, max_steps, check_every = "other", 1e-3, 10, 5
        prepare = init = load = step = residual = sparse = maps = print

    problem = replace(problem_of(), mask=torch.ones(16, 16))
    with pytest.raises(UsageError, match="Other knows no masks; use ADMM"):
        solve(problem, Other())


def test_an_empty_batch_has_no_density() -> None:
    problem = problem_of(channels=3)
    empty = replace(problem, images=problem.images[:0])
    for solver in ("auto", "admm"):
        for layout in ("dense", "sparse"):
            solution = solve(empty, solver, codes=layout)
            assert solution.codes.shape == (0, 6, 16, 16)
            assert solution.density != solution.density
            assert solution.failures == {}


def test_the_problem_refuses_nothing_it_should_not() -> None:
    problem = problem_of()
    assert SparseCodingProblem(problem.images, problem.filters, 0.1).strict
    assert replace(problem, strict=False).readable().all()
