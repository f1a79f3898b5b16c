"""Runs a solver on a problem until every image has converged; each image stops on its own."""

import torch

from quasinat.arrays import Codes
from quasinat.sparse_coding.admm import ADMM
from quasinat.sparse_coding.convolution import convolve
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.solution import Result, Solution


@torch.no_grad()
def solve(problem: SparseCodingProblem, solver: ADMM | None = None, *, start: Codes | None = None) -> Solution:
    """Solves Eq. (2) for a batch; what an image gets does not depend on the others.

    Args:
        problem: images `B C H W`, filters `K C S S` and lambda.
        solver: its hyperparameters; `ADMM()` if none is given.
        start: the `state` of an earlier solution of the same shape, to start from instead of zero.

    Returns:
        A `Solution`. An image that did not converge says so in `result`; nothing fails silently.
    """
    solver = solver or ADMM()
    state = solver.init(problem) if start is None else start.clone()
    steps = torch.full((len(state),), solver.max_steps, dtype=torch.int64)
    result = torch.full((len(state),), int(Result.max_steps_reached), dtype=torch.int64)

    prepared = everything = solver.prepare(problem)
    active, current = torch.arange(len(state), device=state.device), state
    for step in range(1, solver.max_steps + 1):
        if len(active) == 0:
            break
        before, current = current, solver.step(prepared, current)
        if step % solver.check_every and step != solver.max_steps:
            continue
        residual = solver.residual(prepared, before, current)
        ended = (residual <= solver.tolerance) | ~residual.isfinite()
        if bool(ended.any()):
            done = active[ended]
            state[done], steps[done.cpu()] = current[ended], step
            result[done.cpu()] = torch.where(residual[ended].isfinite(), Result.converged, Result.not_finite).cpu()
            active, current, prepared = active[~ended], current[~ended], prepared.keep(~ended)
    state[active] = current

    codes = solver.sparse(everything, state)
    return Solution(
        codes=codes,
        reconstruction=convolve(problem.filters, codes),
        objective=problem.objective(codes),
        steps=steps.to(state.device),
        result=result.to(state.device),
        state=state,
    )
