"""Images made to need many steps: every solver ends at its limit and says so, in a time in proportion to the limit."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from layers import images_of, universal
from quasinat.sparse_coding import ADMM, Auto, CoordinateDescent, SparseCodingProblem, solve
from quasinat.sparse_coding.coordinate_descent import available
from quasinat.sparse_coding.solution import Result, Solution

SPARSITY = 0.02
FILTERS = universal(1).filters[0]
SOLVERS: dict[str, Any] = {
    "admm": ADMM(tolerance=1e-2, check_every=1),
    "adaptive admm": ADMM(tolerance=1e-2, check_every=1, adaptive=True),
    "coordinate descent": CoordinateDescent(tolerance=1e-3, threads=1),
}
if available():
    del SOLVERS["coordinate descent"]
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())


def solved(images: Tensor, solver: Any) -> Solution:
    return solve(SparseCodingProblem(images, FILTERS, SPARSITY), solver)


def climbed(solver: Any, rounds: int = 8, each: int = 6) -> tuple[int, Tensor]:
    """The steps that an attacker's image needs, and the image: random search for more steps, from a photograph."""
    generator = torch.Generator().manual_seed(0)
    best = images_of(1, 1, 16, 16)
    most = int(solved(best, solver).steps)
    for turn in range(rounds):
        noise = torch.randn(each, 1, 16, 16, generator=generator)
        tried = (best + noise * 0.5 ** (turn % 4 + 1)).clamp(0, 1)
        steps = solved(tried, solver).steps
        if int(steps.max()) > most:
            most, best = int(steps.max()), tried[int(steps.argmax())][None]
    return most, best


@every_solver
def test_an_attacker_finds_slow_images_and_gains_nothing_beyond_the_limit(solver: Any) -> None:
    natural = int(solved(images_of(1, 1, 16, 16), solver).steps)
    needed, image = climbed(solver)
    assert needed > natural  # there are such images
    limit = needed // 2
    stopped = solved(torch.cat([image, torch.full_like(image, 0.0)]), replace(solver, max_steps=limit))
    assert stopped.steps.tolist() == [limit, 0]
    assert stopped.result.tolist() == [Result.max_steps_reached, Result.converged]
    assert f"is not solved to the tolerance after {limit} steps" in stopped.failures[0]
    assert bool(stopped.reconstruction.isfinite().all())


@every_solver
def test_the_time_is_in_proportion_to_the_limit(solver: Any) -> None:
    _, image = climbed(solver, rounds=4)

    def seconds(limit: int) -> float:
        endless = replace(solver, tolerance=0.0, max_steps=limit)
        times = []
        for _ in range(3):
            began = time.process_time()
            stopped = solved(image, endless)
            times.append(time.process_time() - began)
        assert int(stopped.steps) <= limit
        return min(times)

    seconds(4)  # what is made once
    few, many = seconds(30), seconds(300)
    assert many < 3 * 10 * few


@pytest.mark.parametrize("sparsity", [1e-7, 1e-4, SPARSITY])
@pytest.mark.parametrize("kind", ["noise", "checkers", "photograph"])
def test_auto_ends_within_both_its_limits(kind: str, sparsity: float) -> None:
    images = {
        "noise": torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
        "checkers": ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float()[None, None],
        "photograph": images_of(1, 1, 16, 16),
    }[kind]
    solver = Auto(tolerance=1e-9, max_steps=10)
    found = solve(SparseCodingProblem(images, FILTERS, sparsity), solver)
    assert int(found.steps) <= ADMM().max_steps
    assert int(found.result) in (Result.converged, Result.max_steps_reached)
    assert bool(found.reconstruction.isfinite().all())
    assert (int(found.result) == Result.converged) == (found.failures == {})


@every_solver
def test_no_step_at_all_is_a_limit_too(solver: Any) -> None:
    stopped = solved(images_of(1, 1, 16, 16), replace(solver, max_steps=0))
    assert stopped.steps.tolist() == [0]
    assert stopped.result.tolist() == [Result.max_steps_reached]
    assert int((stopped.codes != 0).sum()) == 0
