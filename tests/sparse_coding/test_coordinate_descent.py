"""The compiled solver against dense matrices and ADMM: any shape, any number of threads, every instruction set."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding import ADMM, CoordinateDescent, Result, SparseCodingProblem, solve
from quasinat.sparse_coding._kernels import binding
from quasinat.sparse_coding.coordinate_descent import available

from .conftest import as_matrix, problem_of

pytestmark = pytest.mark.skipif(available() is not None, reason=f"coordinate descent: {available()}")
TIGHT = CoordinateDescent(tolerance=1e-11, max_steps=5000)
EVEN = {torch.float32: 2e-4, torch.float64: 1e-8}


@pytest.fixture(params=range(len(binding.LEVELS)), ids=binding.LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has."""
    library = binding.library()
    assert library is not None
    best = library.quasinat_level()
    try:
        if library.quasinat_set_level(request.param) != request.param:
            pytest.skip(f"this machine has no {binding.LEVELS[request.param]}")
        yield binding.LEVELS[request.param]
    finally:
        library.quasinat_set_level(best)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 4),
    filters=st.integers(1, 70),
    size=st.integers(1, 9),
    height=st.integers(9, 34),
    width=st.integers(9, 21),
    share=st.floats(0.1, 0.9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_solutions_meet_the_optimality_conditions(
    channels: int, filters: int, size: int, height: int, width: int, share: float, dtype: torch.dtype, seed: int
) -> None:
    drawn = problem_of(
        images=2, channels=channels, filters=filters, size=size, shape=(height, width), dtype=dtype, seed=seed
    )
    problem = SparseCodingProblem(drawn.images, drawn.filters, share * float(drawn.largest_sparsity().min()))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    solution = solve(problem, CoordinateDescent(tolerance=tolerance, max_steps=5000))
    assert solution.result.tolist() == [Result.converged] * 2
    assert (problem.kkt_residual(solution.codes) < EVEN[dtype] * 10).all()
    torch.testing.assert_close(solution.kkt_residual, problem.kkt_residual(solution.codes), rtol=0, atol=EVEN[dtype])
    torch.testing.assert_close(solution.objective, problem.objective(solution.codes), rtol=1e-5, atol=0)
    synthesis = problem.images - problem.residual(solution.codes)
    torch.testing.assert_close(solution.reconstruction, synthesis, rtol=0, atol=EVEN[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 3, 8, 11, 16])  # rows of one vector, of three, of more
def test_every_instruction_set_gives_the_optimum(level: str, size: int, dtype: torch.dtype) -> None:
    problem = problem_of(channels=3, filters=5, size=size, shape=(16, 17), dtype=dtype)
    solution = solve(problem, CoordinateDescent(tolerance=1e-11 if dtype == torch.float64 else 1e-5, max_steps=3000))
    exact = SparseCodingProblem(problem.images.double(), problem.filters.double(), problem.sparsity)
    assert (solution.codes != 0).any()
    assert float(exact.kkt_residual(solution.codes.double())) < 10 * EVEN[dtype]


def test_it_gives_the_optimum_of_a_dense_matrix() -> None:
    problem = problem_of(channels=3, filters=5, size=4, shape=(11, 12))
    codes = solve(problem, TIGHT).codes.flatten()
    matrix = as_matrix(problem.filters, 11, 12)
    gradient = matrix.T @ (problem.images.flatten() - matrix @ codes) / problem.sparsity
    assert gradient.abs().max() < 1 + 1e-6
    on = codes != 0
    assert on.any()
    torch.testing.assert_close(gradient[on], codes[on].sign(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
def test_it_agrees_with_the_admm(boundary: str) -> None:
    problem = replace(problem_of(images=2, channels=3, shape=(15, 12)), boundary=boundary)
    ours, theirs = solve(problem, TIGHT), solve(problem, ADMM(tolerance=1e-8, max_steps=50000))
    assert ours.reconstruction.shape == problem.images.shape
    assert ours.codes.shape == theirs.codes.shape
    torch.testing.assert_close(ours.objective, theirs.objective, rtol=1e-8, atol=0)
    torch.testing.assert_close(ours.reconstruction, theirs.reconstruction, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(12, 15), (70, 33)])
def test_neither_the_batch_nor_the_threads_change_a_bit(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    problem = problem_of(images=5, channels=3, shape=shape, dtype=dtype)
    one = solve(problem, CoordinateDescent(threads=1))
    assert (one.codes.flatten(1) != 0).any(1).all()
    order = torch.tensor([3, 1, 4, 0, 2])
    for threads in (1, 2, 3, 8):
        solver = CoordinateDescent(threads=threads)
        assert solve(problem, solver).codes.equal(one.codes)
        alone = solve(SparseCodingProblem(problem.images[2:3], problem.filters, problem.sparsity), solver)
        for name in ("codes", "reconstruction", "objective", "kkt_residual", "duality_gap", "steps"):
            assert getattr(alone, name)[0].equal(getattr(one, name)[2]), name
    shuffled = solve(SparseCodingProblem(problem.images[order], problem.filters, problem.sparsity), CoordinateDescent())
    assert shuffled.codes.equal(one.codes[order])


def test_the_gap_is_a_bound_and_the_tolerance_is_kept() -> None:
    problem = problem_of(images=4, channels=3)
    optimum = solve(problem, TIGHT).objective
    gaps = []
    for tolerance in (0.3, 0.1, 1e-2, 1e-3, 1e-5):
        solution = solve(problem, CoordinateDescent(tolerance=tolerance))
        assert (solution.duality_gap <= tolerance * solution.objective).all()
        assert (solution.objective - optimum <= solution.duality_gap + 1e-12).all()
        gaps.append(float((solution.objective - optimum).max()))
    assert gaps[0] > gaps[-1] * 100
    assert gaps == sorted(gaps, reverse=True)


def test_too_few_steps_are_reported() -> None:
    problem = problem_of(images=2)
    solution = solve(problem, CoordinateDescent(tolerance=1e-9, max_steps=2))
    assert solution.result.tolist() == [Result.max_steps_reached] * 2
    assert solution.steps.tolist() == [2, 2]
    assert "raise max_steps" in solution.failures[1]
    nothing = solve(problem, CoordinateDescent(max_steps=0))
    assert (nothing.codes == 0).all()
    torch.testing.assert_close(nothing.objective, problem.images.square().flatten(1).sum(1) / 2)


def test_overflow_is_reported_and_spares_the_others() -> None:
    problem = problem_of(images=2, dtype=torch.float32)
    images = problem.images.clone()
    images[0] *= 1e37
    solution = solve(SparseCodingProblem(images, problem.filters, 0.05), CoordinateDescent())
    assert solution.result.tolist() == [Result.not_finite, Result.converged]
    alone = solve(SparseCodingProblem(images[1:], problem.filters, 0.05), CoordinateDescent())
    assert solution.codes[1:].equal(alone.codes)


def test_unreadable_images_are_left_out_and_the_others_are_as_without_them() -> None:
    problem = problem_of(images=3)
    images = problem.images.clone()
    images[1, 0, 2, 3] = torch.nan
    for layout in ("dense", "sparse"):
        broken = SparseCodingProblem(images, problem.filters, 0.05, strict=False)
        solution = solve(broken, CoordinateDescent(), codes=layout)
        assert solution.result.tolist() == [Result.converged, Result.not_finite, Result.converged]
        assert list(solution.failures) == [1]
        assert "image 1 holds NaN or infinity" in solution.failures[1]
        whole = solve(problem, CoordinateDescent())
        assert solution.codes.to_dense()[[0, 2]].equal(whole.codes[[0, 2]])
        assert solution.reconstruction[1].isnan().all()


def test_corners_of_lambda_and_of_the_batch() -> None:
    problem = problem_of(images=3, channels=2)
    largest = float(problem.largest_sparsity().max())
    above = solve(SparseCodingProblem(problem.images, problem.filters, 1.001 * largest), CoordinateDescent())
    assert (above.codes == 0).all()
    assert above.steps.tolist() == [0, 0, 0]
    assert (above.kkt_residual == 0).all()
    empty = solve(SparseCodingProblem(problem.images[:0], problem.filters, 0.05), CoordinateDescent())
    assert empty.codes.shape == (0, 6, 16, 16)
    zeros = solve(SparseCodingProblem(torch.zeros_like(problem.images), problem.filters, 0.05), CoordinateDescent())
    assert (zeros.reconstruction == 0).all()
    assert zeros.result.tolist() == [Result.converged] * 3
    dead = problem.filters.clone()
    dead[2] = 0
    assert (solve(SparseCodingProblem(problem.images, dead, 0.05), CoordinateDescent()).codes[:, 2] == 0).all()


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_a_warm_start_is_quicker_and_leaves_its_start_alone(layout: str) -> None:
    problem = problem_of(images=3, channels=3)
    solver = CoordinateDescent(tolerance=1e-6)
    cold = solve(problem, solver, codes=layout)
    kept = cold.state.to_dense().clone()
    warm = solve(problem, solver, start=cold.state)
    assert cold.state.to_dense().equal(kept)
    assert warm.steps.tolist() == [0, 0, 0]
    torch.testing.assert_close(warm.codes, kept)
    changed = SparseCodingProblem(problem.images, problem.filters, problem.sparsity * 1.02)
    neighbour = solve(changed, solver, start=cold.state)
    assert (neighbour.steps < cold.steps).all()
    torch.testing.assert_close(neighbour.objective, solve(changed, TIGHT).objective, rtol=1e-5, atol=0)


def test_sparse_codes_are_the_dense_ones() -> None:
    problem = problem_of(images=3, channels=2)
    dense, sparse = (solve(problem, CoordinateDescent(), codes=layout) for layout in ("dense", "sparse"))
    assert sparse.codes.is_sparse
    assert sparse.codes.is_coalesced()
    assert sparse.codes.to_dense().equal(dense.codes)
    assert (sparse.codes.values() != 0).all()
    assert sparse.density == dense.density
    torch.sparse_coo_tensor(sparse.codes.indices(), sparse.codes.values(), dense.codes.shape, check_invariants=True)


def test_the_projection_is_firmly_non_expansive() -> None:
    """||T(x) - T(y)||^2 <= <T(x) - T(y), x - y>: T is the proximal map of a convex function."""
    first, second = (problem_of(images=6, channels=3, seed=seed) for seed in (0, 1))
    near = first.images + 0.05 * torch.randn(
        first.images.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    image = solve(first, TIGHT).reconstruction
    for images in (second.images, near):
        other = solve(SparseCodingProblem(images, first.filters, first.sparsity), TIGHT).reconstruction
        difference = (image - other).flatten(1)
        product = (difference * (first.images - images).flatten(1)).sum(1)
        assert (difference.square().sum(1) <= product * (1 + 1e-8) + 1e-10).all()


def test_what_it_cannot_solve_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(images=2)
    with pytest.raises(UsageError, match=r"lambda is zero.*use ADMM"):
        solve(replace(problem, sparsity=0.0), CoordinateDescent())
    with pytest.raises(UsageError, match=r"has a mask.*use ADMM"):
        solve(replace(problem, mask=torch.ones(16, 16)), CoordinateDescent())
    with pytest.raises(InputError, match=r"torch\.bfloat16 are not coded.*float32"):  # by no solver
        SparseCodingProblem(problem.images.bfloat16(), problem.filters.bfloat16(), 0.05)
    with pytest.raises(InputError, match="the start has shape"):
        solve(problem, CoordinateDescent(), start=torch.zeros(1, 6, 16, 16, dtype=torch.float64))
    monkeypatch.setenv("QUASINAT_NO_KERNEL", "1")
    with pytest.raises(UsageError, match="switched off by QUASINAT_NO_KERNEL; use ADMM"):
        solve(problem, CoordinateDescent())


@pytest.mark.parametrize("bad", [{"tolerance": -1.0}, {"max_steps": -1}, {"passes": 0}, {"inner": 1.0}, {"threads": 0}])
def test_hyperparameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=rf"CoordinateDescent\({next(iter(bad))}="):
        CoordinateDescent(**bad)
