"""Every solver, the same questions: T(x) is unique, so they must agree on it."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from quasinat.sparse_coding import ADMM, CoordinateDescent, FusedADMM, Result, Solver, SparseCodingProblem, solve
from quasinat.sparse_coding.coordinate_descent import available

from .conftest import problem_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SOLVERS = [
    pytest.param(ADMM(tolerance=1e-6, max_steps=3000), id="admm"),
    pytest.param(ADMM(tolerance=1e-6, max_steps=3000, adaptive=True), id="adaptive"),
    pytest.param(
        CoordinateDescent(tolerance=1e-5, max_steps=3000),
        id="coordinate-descent",
        marks=pytest.mark.skipif(available() is not None, reason=f"coordinate descent: {available()}"),
    ),
    pytest.param(
        FusedADMM(tolerance=2e-4, max_steps=300, check_every=15),
        id="fused-admm",
        marks=[
            pytest.mark.skipif(
                importlib.util.find_spec("triton") is None, reason="fused ADMM: Triton is not installed"
            ),
            pytest.mark.filterwarnings("ignore"),
        ],
    ),
]
every_solver = pytest.mark.parametrize("solver", SOLVERS)
every_quick_solver = pytest.mark.parametrize("solver", SOLVERS[:3])  # the interpreter of Triton's kernels is slow
EVEN = 5e-4


def small(**changes: int) -> SparseCodingProblem:
    return problem_of(images=2, channels=3, filters=4, size=3, shape=(8, 9), dtype=torch.float32, **changes)


def on_device(problem: SparseCodingProblem, solver: Solver) -> SparseCodingProblem:
    device = DEVICE if isinstance(solver, FusedADMM) else "cpu"
    return replace(problem, images=problem.images.to(device), filters=problem.filters.to(device))


def optimum(problem: SparseCodingProblem) -> SparseCodingProblem:
    return replace(problem, images=problem.images.double(), filters=problem.filters.double())


@every_solver
def test_they_agree_on_the_projection(solver: Solver) -> None:
    agrees(solver, small())


@every_quick_solver
@pytest.mark.parametrize("boundary", ["reflect", "zero"])
def test_they_agree_beyond_the_circular_boundary(solver: Solver, boundary: str) -> None:
    agrees(solver, replace(small(), boundary=boundary))


def agrees(solver: Solver, problem: SparseCodingProblem) -> None:
    """The solver's answer against a float64 ADMM run until it stands still."""
    truth = solve(optimum(problem), ADMM(tolerance=1e-9, max_steps=50000))
    solution = solve(on_device(problem, solver), solver)
    assert solution.result.tolist() == [Result.converged] * 2
    torch.testing.assert_close(solution.objective.double().cpu(), truth.objective, rtol=1e-4, atol=0)
    torch.testing.assert_close(solution.reconstruction.double().cpu(), truth.reconstruction, rtol=0, atol=EVEN)
    assert (solution.kkt_residual < 0.02).all()
    assert (solution.duality_gap.cpu() + 1e-5 * truth.objective >= solution.objective.cpu() - truth.objective).all()


@every_solver
def test_above_its_maximum_lambda_leaves_nothing(solver: Solver) -> None:
    problem = small()
    above = replace(problem, sparsity=1.001 * float(problem.largest_sparsity().max()))
    solution = solve(on_device(above, solver), solver)
    assert (solution.codes == 0).all()
    assert (solution.reconstruction == 0).all()
    assert solution.result.tolist() == [Result.converged] * 2


@every_quick_solver
def test_the_projection_is_firmly_non_expansive(solver: Solver) -> None:
    """||T(x) - T(y)||^2 <= <T(x) - T(y), x - y>: T is the proximal map of a convex function."""
    first, second = small(), small(seed=1)
    pair = [replace(first, images=images) for images in (first.images, second.images, first.images + 0.05)]
    image, *others = (solve(on_device(problem, solver), solver).reconstruction.cpu() for problem in pair)
    for problem, other in zip(pair[1:], others, strict=True):
        difference = (image - other).flatten(1)
        product = (difference * (first.images - problem.images).flatten(1)).sum(1)
        assert (difference.square().sum(1) <= product + EVEN).all()


@every_quick_solver
def test_bad_images_are_reported_and_inputs_left_alone(solver: Solver) -> None:
    problem = small()
    kept = problem.images.clone(), problem.filters.clone()
    expected = solve(on_device(problem, solver), solver)
    assert problem.images.equal(kept[0])
    assert problem.filters.equal(kept[1])
    broken = torch.cat([problem.images[:1], torch.full_like(problem.images[:1], torch.inf), problem.images[1:]])
    solution = solve(on_device(replace(problem, images=broken, strict=False), solver), solver)
    assert solution.result.tolist() == [Result.converged, Result.not_finite, Result.converged]
    assert "image 1 holds NaN or infinity" in solution.failures[1]
    torch.testing.assert_close(solution.codes[[0, 2]], expected.codes, rtol=0, atol=1e-6)
    strided = problem.images.to(memory_format=torch.channels_last)
    assert not strided.is_contiguous()
    again = solve(on_device(replace(problem, images=strided), solver), solver)
    torch.testing.assert_close(again.codes, expected.codes, rtol=0, atol=1e-6)
    empty = solve(on_device(replace(problem, images=problem.images[:0]), solver), solver)
    assert empty.reconstruction.shape == (0, 3, 8, 9)
