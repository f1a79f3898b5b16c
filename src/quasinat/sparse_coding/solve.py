"""Runs a solver on a problem until every image has converged; each image stops on its own."""

import torch

from quasinat.arrays import Codes
from quasinat.errors import InputError
from quasinat.sparse_coding.admm import ADMM
from quasinat.sparse_coding.convolution import convolve
from quasinat.sparse_coding.pairs import from_pairs, to_pairs
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

    Raises:
        InputError: `start` is a state of another problem's shape.
    """
    shape = (len(problem.images), len(problem.filters), *problem.images.shape[-2:])
    if start is not None and start.shape != shape:
        raise InputError(
            f"the start has shape {tuple(start.shape)}, the codes of this problem {shape}",
            "pass the state of a solution of the same images and filters, or none",
        )
    solver = solver or ADMM()
    state = solver.init(problem) if start is None else to_pairs(start)
    # Where zero is the optimum the relative residual of the iteration stays at 1 for ever; it is known beforehand.
    zero = problem.largest_sparsity() <= problem.sparsity
    state[zero] = 0
    steps = torch.where(zero, 0, solver.max_steps).cpu()
    result = torch.where(zero, Result.converged, Result.max_steps_reached).cpu()

    active, current = (~zero).nonzero().flatten(), state[~zero]
    everything = solver.prepare(problem)
    prepared = everything.keep(~zero)
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

    count = len(problem.filters)
    codes = from_pairs(solver.sparse(everything, state), count)
    return Solution(
        codes=codes,
        reconstruction=convolve(problem.filters, codes),
        objective=problem.objective(codes),
        steps=steps.to(state.device),
        result=result.to(state.device),
        state=from_pairs(state, count),
    )
