"""Solves Eq. (2) for a batch with the solver that the caller names."""

from dataclasses import asdict
from typing import Protocol, get_args, runtime_checkable

import torch

from quasinat.arrays import StateBeyond
from quasinat.errors import UsageError, did_you_mean
from quasinat.sparse_coding.admm import ADMM
from quasinat.sparse_coding.auto import Auto
from quasinat.sparse_coding.coordinate_descent import CoordinateDescent
from quasinat.sparse_coding.fused_admm import FusedADMM
from quasinat.sparse_coding.iterate import IterativeSolver, Layout, iterate
from quasinat.sparse_coding.masked_admm import MaskedADMM
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.solution import Solution, among_unsolved


@runtime_checkable
class WholeSolver(Protocol):
    """A solver with a loop of its own, as coordinate descent has."""

    @property
    def tolerance(self) -> float: ...
    @property
    def max_steps(self) -> int: ...
    def solve(
        self, problem: SparseCodingProblem, start: StateBeyond | None = None, codes: Layout = "dense"
    ) -> Solution: ...


Solver = IterativeSolver | WholeSolver
SOLVERS: dict[str, type[Solver]] = {
    "auto": Auto,
    "admm": ADMM,
    "coordinate-descent": CoordinateDescent,
    "fused-admm": FusedADMM,
}


@torch.no_grad()
def solve(
    problem: SparseCodingProblem,
    solver: str | Solver = "auto",
    *,
    start: StateBeyond | None = None,
    codes: Layout = "dense",
) -> Solution:
    """Solves Eq. (2) for a batch; what an image gets does not depend on the others.

    Args:
        problem: images `B C H W`, filters `K C S S`, lambda, and perhaps a boundary and a mask.
        solver: an instance, or a name in `SOLVERS` (its defaults then); "auto" runs what suits the problem.
        start: the `state` of an earlier solution by the same solver, to start from instead of zero. The images, the
            filters or lambda may have changed; their shapes may not.
        codes: whether the solution's codes are "dense" or a coalesced "sparse" COO tensor.

    Returns:
        A `Solution`. An image that did not converge says so in `result` and `failures`; nothing fails silently.

    Raises:
        InputError: `start` is a state of another problem's shape.
        UsageError: an unknown solver or layout, or a solver that knows no masks on a problem with one.

    Examples:
        With a single filter that is one pixel, T(x) is the soft threshold of x:

        >>> import torch
        >>> from quasinat.sparse_coding import SparseCodingProblem, solve
        >>> pixel = torch.zeros(1, 1, 3, 3)
        >>> pixel[0, 0, 0, 0] = 1
        >>> images = torch.tensor([0.1, 0.5, 0.9]).repeat(3, 1).view(1, 1, 3, 3)
        >>> solution = solve(SparseCodingProblem(images, pixel, sparsity=0.2))
        >>> solution.reconstruction[0, 0, 0].round(decimals=3)
        tensor([0.0000, 0.3000, 0.7000])
        >>> solution.failures
        {}
    """
    if codes not in get_args(Layout):
        raise UsageError(f"unknown layout {codes!r} of the codes", did_you_mean(str(codes), list(get_args(Layout))))
    chosen = chosen_solver(problem, solver)
    if not problem.strict:
        readable = problem.readable()
        if not bool(readable.all()):
            kept = None if start is None else start.index_select(0, readable.nonzero().flatten())
            return among_unsolved(solve(problem.select(readable), chosen, start=kept, codes=codes), readable)
    if isinstance(chosen, WholeSolver):
        return chosen.solve(problem, start=start, codes=codes)
    return iterate(problem, chosen, start, codes)


def chosen_solver(problem: SparseCodingProblem, solver: str | Solver) -> Solver:
    """The instance that `solve` runs for what the caller names."""
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise UsageError(f"unknown solver {solver!r}", did_you_mean(solver, list(SOLVERS)))
        solver = SOLVERS[solver]()
    if problem.mask is None or isinstance(solver, MaskedADMM | WholeSolver):
        return solver
    if isinstance(solver, ADMM):
        return MaskedADMM(**asdict(solver))
    raise UsageError(f"{type(solver).__name__} knows no masks", "use ADMM() on a problem with a mask")
