"""The batched solver: each image on its own, the corners of lambda, warm starts, and what it reports."""

import pytest
import torch

from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding import ADMM, Result, SparseCodingProblem, project_filters, solve

from .conftest import as_matrix, problem_of

TIGHT = ADMM(tolerance=1e-6, max_steps=5000)
EVEN = {torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_gets_what_it_gets_alone(dtype: torch.dtype) -> None:
    problem = problem_of(images=5, channels=3, shape=(12, 15), dtype=dtype)
    scales = torch.tensor([1.0, 0.2, 3.0, 0.0, 0.6], dtype=dtype)  # so that they stop at different steps
    images = problem.images * scales.view(5, 1, 1, 1)
    solver = ADMM(tolerance=1e-3, max_steps=400)
    together = solve(SparseCodingProblem(images, problem.filters, 0.05), solver)
    assert len(set(together.steps.tolist())) > 2
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = solve(SparseCodingProblem(images[order], problem.filters, 0.05), solver)
    for place, index in enumerate(order.tolist()):
        alone = solve(SparseCodingProblem(images[index : index + 1], problem.filters, 0.05), solver)
        for other, row in ((together, index), (shuffled, place)):
            assert int(other.steps[row]) == int(alone.steps)
            assert int(other.result[row]) == int(alone.result)
            for name in ("codes", "reconstruction", "objective", "state"):
                found, expected = getattr(other, name)[row], getattr(alone, name)[0]
                torch.testing.assert_close(found, expected, rtol=0, atol=EVEN[dtype] * 10)
    for tensor in (together.codes, together.reconstruction, together.objective, together.state):
        assert tensor.dtype == dtype


def test_the_reports_are_consistent() -> None:
    problem = problem_of(images=3, channels=2)
    solution = solve(problem, ADMM())
    assert solution.result.tolist() == [Result.converged] * 3
    torch.testing.assert_close(solution.objective, problem.objective(solution.codes))
    assert solution.density == float((solution.codes != 0).double().mean())
    assert 0 < solution.density < 0.5
    assert (solution.steps % ADMM().check_every == 0).all()


def test_too_few_steps_are_reported() -> None:
    problem = problem_of(images=2)
    solution = solve(problem, ADMM(tolerance=1e-9, max_steps=7))
    assert solution.result.tolist() == [Result.max_steps_reached] * 2
    assert solution.steps.tolist() == [7, 7]


def test_overflow_is_reported_and_spares_the_others() -> None:
    problem = problem_of(images=2, dtype=torch.float32)
    images = problem.images.clone()
    images[0] *= 1e37
    solution = solve(SparseCodingProblem(images, problem.filters, 0.05))
    assert solution.result.tolist() == [Result.not_finite, Result.converged]
    torch.testing.assert_close(solution.codes[1:], solve(SparseCodingProblem(images[1:], problem.filters, 0.05)).codes)


@pytest.mark.parametrize("penalty", [None, 0.3, 4.0])
@pytest.mark.parametrize("relaxation", [1.0, 1.8])
def test_every_setting_reaches_the_same_optimum(penalty: float | None, relaxation: float) -> None:
    problem = problem_of(channels=2)
    solver = ADMM(tolerance=1e-6, max_steps=20000, penalty=penalty, relaxation=relaxation)
    solution, reference = solve(problem, solver), solve(problem, TIGHT)
    torch.testing.assert_close(solution.objective, reference.objective, rtol=1e-6, atol=0)
    torch.testing.assert_close(solution.reconstruction, reference.reconstruction, rtol=0, atol=1e-4)


def test_a_warm_start_is_quicker() -> None:
    problem = problem_of(images=2, channels=3)
    solver = ADMM(tolerance=1e-4, max_steps=5000)
    cold = solve(problem, solver)
    kept = cold.state.clone()
    warm = solve(problem, solver, start=cold.state)
    assert cold.state.equal(kept)
    assert (warm.steps <= cold.steps / 4).all()
    torch.testing.assert_close(warm.objective, cold.objective, rtol=1e-4, atol=0)
    changed = SparseCodingProblem(problem.images, problem.filters, problem.sparsity * 1.02)
    neighbour = solve(changed, solver, start=cold.state)
    assert (neighbour.steps < cold.steps).all()
    torch.testing.assert_close(neighbour.objective, solve(changed, TIGHT).objective, rtol=1e-4, atol=0)


def test_zero_images_are_done_at_once() -> None:
    problem = problem_of(images=2, channels=3)
    solution = solve(SparseCodingProblem(torch.zeros_like(problem.images), problem.filters, 0.2))
    assert (solution.codes == 0).all()
    assert (solution.reconstruction == 0).all()
    assert (solution.objective == 0).all()
    assert solution.steps.tolist() == [0, 0]
    assert solution.result.tolist() == [Result.converged] * 2


def test_an_empty_batch_gives_an_empty_answer() -> None:
    problem = problem_of(channels=3)
    solution = solve(SparseCodingProblem(problem.images[:0], problem.filters, 0.2))
    assert solution.codes.shape == (0, 6, 16, 16)
    assert solution.reconstruction.shape == (0, 3, 16, 16)
    assert solution.objective.shape == solution.steps.shape == solution.result.shape == (0,)


def test_above_its_maximum_lambda_leaves_nothing() -> None:
    problem = problem_of(images=3, channels=2)
    largest = problem.largest_sparsity()
    above = solve(SparseCodingProblem(problem.images, problem.filters, 1.001 * float(largest.max())))
    assert (above.codes == 0).all()
    assert above.result.tolist() == [Result.converged] * 3
    torch.testing.assert_close(above.objective, problem.images.square().flatten(1).sum(1) / 2)
    below = solve(SparseCodingProblem(problem.images, problem.filters, 0.99 * float(largest.min())), TIGHT)
    assert (below.codes.flatten(1) != 0).any(1).all()


def test_a_warm_start_under_a_larger_lambda_leaves_nothing_either() -> None:
    problem = problem_of()
    warm = solve(problem).state
    above = SparseCodingProblem(problem.images, problem.filters, 1.001 * float(problem.largest_sparsity()))
    assert (solve(above, start=warm).codes == 0).all()


def test_without_lambda_it_is_least_squares() -> None:
    drawn = problem_of(images=2, channels=2, filters=8)
    overcomplete = solve(SparseCodingProblem(drawn.images, drawn.filters, 0.0), TIGHT)
    assert overcomplete.result.tolist() == [Result.converged] * 2
    torch.testing.assert_close(overcomplete.reconstruction, drawn.images, rtol=0, atol=1e-3)
    few = problem_of(channels=2, filters=1, size=3, shape=(6, 6))
    solution = solve(SparseCodingProblem(few.images, few.filters, 0.0), ADMM(tolerance=1e-9, max_steps=20000))
    matrix = as_matrix(few.filters, 6, 6)
    dense = torch.linalg.lstsq(matrix, few.images.flatten()[:, None]).solution
    torch.testing.assert_close(solution.reconstruction.flatten(), (matrix @ dense).flatten(), rtol=0, atol=1e-5)


def test_inputs_are_left_alone_and_need_not_be_contiguous() -> None:
    problem = problem_of(images=2, channels=3, shape=(10, 14))
    images, filters = problem.images.clone(), problem.filters.clone()
    solution = solve(problem)
    assert problem.images.equal(images)
    assert problem.filters.equal(filters)
    strided = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    reversed_filters = filters.flip(0).contiguous().flip(0).transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    again = solve(SparseCodingProblem(strided, reversed_filters, problem.sparsity))
    torch.testing.assert_close(again.codes, solution.codes, rtol=0, atol=1e-12)
    window = torch.zeros(2, 3, 30, 30, dtype=images.dtype)[:, :, 5:15, 7:21].copy_(images)
    torch.testing.assert_close(
        solve(SparseCodingProblem(window, filters, problem.sparsity)).codes, solution.codes, rtol=0, atol=1e-12
    )


def test_no_gradient_is_recorded() -> None:
    problem = problem_of()
    solution = solve(SparseCodingProblem(problem.images.clone().requires_grad_(), problem.filters, 0.05))
    assert not solution.reconstruction.requires_grad


def test_one_orthonormal_filter_is_a_soft_threshold() -> None:
    """With a single one-pixel filter D is the identity, and Eq. (2) has the closed form soft(x, lambda)."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(2, 1, 9, 6, generator=generator, dtype=torch.float64)
    filters = project_filters(torch.ones(1, 1, 1, 1, dtype=torch.float64), "joint")
    solution = solve(SparseCodingProblem(images, filters, 0.4), ADMM(tolerance=1e-9, max_steps=5000))
    expected = images.sign() * (images.abs() - 0.4).clamp_min(0)
    torch.testing.assert_close(solution.codes, expected, rtol=0, atol=1e-7)


def test_a_start_of_another_shape_is_refused() -> None:
    problem = problem_of(images=2, filters=5)
    state = solve(problem).state
    with pytest.raises(InputError, match="the start has shape"):
        solve(problem, start=state[:1])


@pytest.mark.parametrize(
    "bad", [{"tolerance": -1.0}, {"penalty": 0.0}, {"relaxation": 2.0}, {"check_every": 0}, {"max_steps": -1}]
)
def test_hyperparameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"ADMM\({next(iter(bad))}="):
        ADMM(**bad)
