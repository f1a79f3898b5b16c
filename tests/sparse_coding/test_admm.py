"""What the ADMM may be told: an adaptive penalty, a narrower state, a start."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding import ADMM, Result, SparseCodingProblem, solve

from .conftest import problem_of

TIGHT = ADMM(tolerance=1e-6, max_steps=20000)


@pytest.fixture
def problem() -> SparseCodingProblem:
    """Four images whose scales, and best penalties, differ."""
    drawn = problem_of(images=4, channels=3)
    scales = torch.tensor([1.0, 0.2, 5.0, 0.5], dtype=torch.float64).view(4, 1, 1, 1)
    return replace(drawn, images=drawn.images * scales)


@pytest.mark.parametrize("penalty", [None, 0.01, 100.0])
def test_an_adaptive_penalty_reaches_the_same_optimum(problem: SparseCodingProblem, penalty: float | None) -> None:
    solution = solve(problem, replace(TIGHT, adaptive=True, penalty=penalty))
    reference = solve(problem, TIGHT)
    assert solution.result.tolist() == [Result.converged] * 4
    torch.testing.assert_close(solution.objective, reference.objective, rtol=1e-6, atol=0)
    torch.testing.assert_close(solution.reconstruction, reference.reconstruction, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_it_makes_up_for_a_penalty_far_from_the_best(problem: SparseCodingProblem, factor: float) -> None:
    fixed = ADMM(tolerance=1e-4, max_steps=2000, penalty=25 * problem.sparsity * factor)
    adaptive = solve(problem, replace(fixed, adaptive=True))
    assert adaptive.result.tolist() == [Result.converged] * 4
    assert float(adaptive.steps.double().mean()) < float(solve(problem, fixed).steps.double().mean()) / 4


def test_an_adaptive_penalty_is_each_images_own(problem: SparseCodingProblem) -> None:
    solver = ADMM(adaptive=True, penalty=0.05)
    together = solve(problem, solver)
    for image in range(4):
        alone = solve(problem.select(slice(image, image + 1)), solver)
        assert int(alone.steps) == int(together.steps[image])
        torch.testing.assert_close(alone.codes[0], together.codes[image], rtol=0, atol=1e-10)
        torch.testing.assert_close(alone.state[0], together.state[image], rtol=0, atol=1e-10)


def test_its_state_starts_a_solver_of_the_same_penalty(problem: SparseCodingProblem) -> None:
    """The state of an image whose rho has moved far is kept as one of the rho at the start."""
    solver = ADMM(tolerance=1e-4, max_steps=5000, penalty=0.02, adaptive=True)
    cold = solve(problem, solver)
    for warm_solver in (solver, replace(solver, adaptive=False)):
        warm = solve(problem, warm_solver, start=cold.state)
        assert float(warm.steps.double().mean()) < float(cold.steps.double().mean()) / 4
        torch.testing.assert_close(warm.objective, cold.objective, rtol=1e-4, atol=0)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("storage", "tolerance", "close"),
    [
        (torch.float64, 1e-4, 1e-9),
        (torch.float32, 1e-4, 1e-4),
        (torch.float16, 2e-3, 1e-3),
        (torch.bfloat16, 1e-2, 1e-2),
    ],
)
def test_a_narrow_state_costs_little(
    problem: SparseCodingProblem, storage: torch.dtype, tolerance: float, close: float, masked: bool, adaptive: bool
) -> None:
    solver = ADMM(tolerance=tolerance, max_steps=2000, adaptive=adaptive)
    if masked:
        weights = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)) + 0.1
        problem = replace(problem, mask=weights)
    wide, narrow = solve(problem, solver), solve(problem, replace(solver, storage=storage))
    assert narrow.state.dtype == storage
    for name in ("codes", "reconstruction", "objective", "kkt_residual", "duality_gap"):
        assert getattr(narrow, name).dtype == torch.float64
    assert narrow.result.tolist() == [Result.converged] * 4
    torch.testing.assert_close(narrow.objective, wide.objective, rtol=close, atol=0)
    again = solve(problem, replace(solver, storage=storage), start=narrow.state)
    assert again.state.dtype == storage
    assert float(again.steps.double().mean()) < float(narrow.steps.double().mean()) / 2
    wider = solve(problem, solver, start=narrow.state)
    assert wider.state.dtype == torch.float64
    torch.testing.assert_close(wider.objective, wide.objective, rtol=max(close, 1e-5), atol=0)


def test_a_narrow_state_that_overflows_is_reported(problem: SparseCodingProblem) -> None:
    images = problem.images.clone()
    images[2] *= 1e7
    solution = solve(replace(problem, images=images), ADMM(storage=torch.float16, tolerance=5e-3))
    assert int(solution.result[2]) == Result.not_finite
    assert "image 2 overflows torch.float16; scale it down, or use a wider dtype" in solution.failures[2]


@pytest.mark.parametrize("wrong", [torch.int32, torch.complex64])
def test_a_storage_that_is_no_float_is_refused(wrong: torch.dtype) -> None:
    with pytest.raises(UsageError, match=r"ADMM\(storage=torch.* is out of range"):
        ADMM(storage=wrong)


def test_a_start_of_another_kind_is_refused(problem: SparseCodingProblem) -> None:
    sparse = solve(problem, ADMM(), codes="sparse").codes
    with pytest.raises(InputError, match="the start is a sparse tensor, no state of ADMM; pass the state of"):
        solve(problem, ADMM(), start=sparse)


@pytest.mark.parametrize("change", [lambda p: p, lambda p: replace(p, boundary="zero")])
def test_many_chunks_give_what_one_gives(change: Callable[[SparseCodingProblem], SparseCodingProblem]) -> None:
    """A batch of more pixels than a chunk holds."""
    many = change(problem_of(images=40, channels=1, filters=3, size=3, shape=(24, 24)))
    solution = solve(many, ADMM(), codes="sparse")
    for image in (0, 17, 39):
        alone = solve(many.select(slice(image, image + 1)), ADMM())
        assert int(alone.steps) == int(solution.steps[image])
        torch.testing.assert_close(solution.codes.to_dense()[image], alone.codes[0], rtol=0, atol=1e-11)
        torch.testing.assert_close(solution.state[image], alone.state[0], rtol=0, atol=1e-11)
