"""Dictionary learning: Eq. (2) is biconvex, so codes and filters take turns (the paper, section 3.3)."""

from collections.abc import Callable

import torch

from quasinat.arrays import Codes, Filters, Images, State
from quasinat.sparse_coding.auto import Auto
from quasinat.sparse_coding.dictionary import Dictionary, patches_as_filters
from quasinat.sparse_coding.filter_update import update_filters
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.proximal import Constraint
from quasinat.sparse_coding.solve import Solver, solve
from quasinat.sparse_coding.statistics import Statistics, statistics

STATISTICS_BATCH = 64


@torch.no_grad()
def learn_dictionary(
    images: Images,
    *,
    filters: int = 64,
    size: int = 8,
    sparsity: float = 0.2,
    iterations: int = 8,
    constraint: Constraint = "joint",
    start: Filters | None = None,
    solver: Solver | None = None,
    seed: int = 0,
    on_iteration: Callable[[int, float], None] | None = None,
) -> Dictionary:
    """Learns filters shared by all the images, with codes shared over the channels.

    Each outer iteration codes every image from where it stood and then fits the filters to the codes. Neither step
    raises the objective, so the curve falls (to the solver's tolerance).

    Args:
        images: what is to be coded, `B C H W`: any real values, the high-pass part under `split="tikhonov"`.
        filters: K.
        size: S.
        sparsity: lambda.
        iterations: outer iterations.
        constraint: unit norm of each filter over its channels ("joint", as the authors' released filters) or of each
            channel ("per-channel", Eq. 2).
        start: initial filters instead of random patches.
        solver: of the coding step; warm-started.
        seed: of the initial patches.
        on_iteration: called with the iteration, from 0, and the mean objective per image.

    Raises:
        InputError: images that cannot be coded (NaN, flat, smaller than the filters).
    """
    solver = solver or Auto(tolerance=5e-3)
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        start = patches_as_filters(images, filters=filters, size=size, constraint=constraint, generator=generator)
    SparseCodingProblem(images, start, sparsity)  # refuses bad images, by their place in the set
    current, state, curve = start, None, []
    for iteration in range(iterations + 1):
        codes, state, objective = _code(images, current, sparsity, solver, state)
        curve.append(objective)
        if on_iteration:
            on_iteration(iteration, objective)
        if iteration < iterations:
            current = update_filters(current, _statistics(codes, images, size), constraint=constraint)
    return Dictionary(current, constraint, sparsity, tuple(curve), len(images))


def _code(
    images: Images, filters: Filters, sparsity: float, solver: Solver, state: State | None
) -> tuple[Codes, State, float]:
    """Sparse codes and solver state of all the images, and the mean objective."""
    solution = solve(SparseCodingProblem(images, filters, sparsity), solver, start=state, codes="sparse")
    return solution.codes, solution.state, float(solution.objective.double().mean())


def _statistics(codes: Codes, images: Images, size: int) -> Statistics:
    rows = torch.arange(len(images), device=images.device).split(STATISTICS_BATCH)
    parts = [statistics(codes.index_select(0, batch).to_dense(), images[batch], size) for batch in rows]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
