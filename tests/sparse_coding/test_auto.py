"""Which solver runs, and what happens to images whose codes are not sparse."""

from dataclasses import replace
from unittest import mock

import pytest
import torch

from quasinat.errors import UsageError
from quasinat.sparse_coding import (
    ADMM,
    SOLVERS,
    Auto,
    CoordinateDescent,
    FusedADMM,
    Result,
    SparseCodingProblem,
    fused_admm,
    solve,
)
from quasinat.sparse_coding.auto import NARROW_STEPS
from quasinat.sparse_coding.coordinate_descent import available

from .conftest import problem_of

needs_kernel = pytest.mark.skipif(available() is not None, reason=f"coordinate descent: {available()}")


@needs_kernel
def test_the_solution_says_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(images=2)
    assert solve(problem).solver == "coordinate-descent"
    assert solve(replace(problem, mask=torch.ones(16, 16))).solver == "masked-admm"
    assert solve(replace(problem, sparsity=0.0)).solver == "admm"
    monkeypatch.setenv("QUASINAT_NO_KERNEL", "1")
    without = solve(problem)
    assert without.solver == "admm"
    monkeypatch.delenv("QUASINAT_NO_KERNEL")
    torch.testing.assert_close(without.objective, solve(problem).objective, rtol=2e-2, atol=0)


@needs_kernel
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_images_that_are_not_sparse_go_to_the_admm_each_on_its_own(layout: str) -> None:
    problem = problem_of(images=4, channels=3)
    scales = torch.tensor([1.0, 30.0, 0.5, 20.0], dtype=torch.float64).view(4, 1, 1, 1)
    problem = SparseCodingProblem(problem.images * scales, problem.filters, 0.05)
    solver = Auto(tolerance=1e-3, max_steps=8)
    solution = solve(problem, solver, codes=layout)
    assert solution.solver == "coordinate-descent, 2 of 4 images by admm"
    assert solution.result.tolist() == [Result.converged] * 4
    codes = solution.codes.to_dense()
    torch.testing.assert_close(solution.objective, problem.objective(codes))
    optimum = solve(problem, CoordinateDescent(tolerance=1e-6, max_steps=50000)).objective
    torch.testing.assert_close(solution.objective, optimum, rtol=1e-3, atol=0)
    for image in range(4):
        alone = solve(SparseCodingProblem(problem.images[image : image + 1], problem.filters, 0.05), solver)
        torch.testing.assert_close(alone.codes[0], codes[image], rtol=0, atol=1e-10)
    if layout == "sparse":
        assert solution.codes.is_coalesced()
        torch.sparse_coo_tensor(solution.codes.indices(), solution.codes.values(), codes.shape, check_invariants=True)
    again = solve(problem, solver, start=solution.state)
    torch.testing.assert_close(again.objective, optimum, rtol=1e-3, atol=0)


def test_solvers_have_names() -> None:
    problem = problem_of()
    for name, kind in SOLVERS.items():
        assert kind.name == name
    torch.testing.assert_close(solve(problem, "admm").codes, solve(problem, ADMM()).codes)
    with pytest.raises(UsageError, match="unknown solver 'adm'; did you mean 'admm'"):
        solve(problem, "adm")


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16])
def test_narrow_maps_are_as_near_to_the_optimum_after_as_many_steps(storage: torch.dtype) -> None:
    problem = problem_of(images=2, channels=3, dtype=torch.float32)
    narrow = solve(problem, Auto(storage=storage))
    assert narrow.solver == "admm"
    assert narrow.state.dtype == storage
    wide = solve(problem, ADMM(tolerance=0.0, max_steps=NARROW_STEPS))
    exact = solve(problem, CoordinateDescent(tolerance=1e-7)) if available() is None else wide
    rounding = {torch.float16: 1e-3, torch.bfloat16: 8e-3}[storage]
    error, least = ((it.reconstruction - exact.reconstruction).abs().max() for it in (narrow, wide))
    assert float(error) < float(least) + rounding * float(problem.images.abs().max())


def test_a_storage_that_holds_no_maps_is_refused() -> None:
    with pytest.raises(UsageError, match=r"torch.int8\) holds no maps; choose one of torch.float64"):
        Auto(storage=torch.int8)


def test_narrow_maps_on_a_gpu_take_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_admm, "unsuitable", lambda problem: None)
    on_gpu = mock.create_autospec(SparseCodingProblem, instance=True)
    on_gpu.mask, on_gpu.images = None, mock.Mock(dtype=torch.float32)
    on_gpu.images.device.type = "cuda"
    for storage, expected in ((None, "ieee"), (torch.bfloat16, "tf32x3")):
        picked = Auto(storage=storage).pick(on_gpu)
        assert isinstance(picked, FusedADMM)
        assert (picked.storage, picked.precision) == (storage or torch.float32, expected)
        assert picked.tolerance == pytest.approx(1e-3)
