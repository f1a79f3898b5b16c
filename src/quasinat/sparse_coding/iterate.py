"""The loop of the ADMM-like solvers: steps until every image has converged; each image stops on its own."""

from typing import Any, Literal, Protocol, runtime_checkable

import torch

from quasinat.arrays import Codes, PerImage, State
from quasinat.errors import InputError
from quasinat.sparse_coding.chunked import chunks_of, map_chunks
from quasinat.sparse_coding.evaluate import evaluate
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.solution import Result, Solution, join

Layout = Literal["dense", "sparse"]


@runtime_checkable
class IterativeSolver(Protocol):
    """What the loop asks of a solver: hyperparameters, and pure functions on a state whose rows are the images.

    `prepare` gives whatever stays the same over the iterations, with a method `keep(rows)` that gives the same for some
    of the images (a mask or a slice). A solver whose attribute `adaptive` is true also has
    `adapt(prepared, before, after)`, which gives what to prepare the next steps with.
    """

    @property
    def name(self) -> str: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def max_steps(self) -> int: ...
    @property
    def check_every(self) -> int: ...
    def prepare(self, problem: SparseCodingProblem) -> Any: ...
    def init(self, problem: SparseCodingProblem) -> Any: ...
    def load(self, problem: SparseCodingProblem, maps: State) -> Any: ...
    def step(self, prepared: Any, state: Any) -> Any: ...
    def residual(self, prepared: Any, before: Any, after: Any) -> PerImage: ...
    def sparse(self, prepared: Any, state: Any) -> Codes: ...
    def maps(self, prepared: Any, state: Any) -> State: ...


def iterate(problem: SparseCodingProblem, solver: IterativeSolver, start: State | None, layout: Layout) -> Solution:
    """Solves `problem`, all of whose images are finite, from the maps `start` of an earlier solution or from zero.

    On a CPU the batch goes in chunks that fit the cache, one to a thread; the spectra of the filters are shared.

    Raises:
        InputError: `start` is a state of another solver's or another problem's shape.
    """
    _check_start(problem, solver, start)
    height, width = problem.codes_shape()[2:]
    count = len(problem.images)
    on_cpu = problem.images.device.type == "cpu"
    chunks = (chunks_of(count, height, width) if on_cpu else []) or [slice(0, count)]
    prepared = solver.prepare(problem.circular())

    def run(chunk: slice) -> Solution:
        part = problem if len(chunks) == 1 else problem.select(chunk)
        constants = prepared if len(chunks) == 1 else prepared.keep(chunk)
        return _run(part, solver, constants, None if start is None else start[chunk], layout)

    return join(map_chunks(run, chunks))


def _run(
    problem: SparseCodingProblem, solver: IterativeSolver, everything: Any, start: State | None, layout: Layout
) -> Solution:
    circular = problem.circular()
    state = solver.init(circular) if start is None else solver.load(circular, start)
    # Where zero is the optimum the relative residual of the iteration stays at 1 for ever; it is known beforehand.
    zero = circular.largest_sparsity() <= problem.sparsity
    state[zero] = 0
    steps = torch.where(zero, 0, solver.max_steps).cpu()
    result = torch.where(zero, Result.converged, Result.max_steps_reached).cpu()

    active, current = (~zero).nonzero().flatten(), state[~zero]
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
            active, prepared = active[~ended], prepared.keep(~ended)
            before, current = before[~ended], current[~ended]
        if getattr(solver, "adaptive", False) and len(active):
            prepared = solver.adapt(prepared, before, current)  # type: ignore[attr-defined]
    state[active] = current

    codes = solver.sparse(everything, state)
    report = evaluate(problem, codes)
    return Solution(
        codes=codes.to_sparse() if layout == "sparse" else codes,
        reconstruction=report.reconstruction,
        objective=report.objective,
        steps=steps.to(state.device),
        result=result.to(state.device),
        state=solver.maps(everything, state),
        kkt_residual=report.kkt_residual,
        duality_gap=report.duality_gap,
        solver=solver.name,
    )


def _check_start(problem: SparseCodingProblem, solver: IterativeSolver, start: State | None) -> None:
    if start is None:
        return
    remedy = "pass the state of a solution of the same images and filters, or none"
    if start.is_sparse:
        raise InputError(f"the start is a sparse tensor, no state of {type(solver).__name__}", remedy)
    expected = (len(problem.images), *solver.init(problem.circular().select(slice(0, 0))).shape[1:])
    if start.shape != expected:
        raise InputError(f"the start has shape {tuple(start.shape)}, the state of this problem {expected}", remedy)
