"""The dictionary step: with the codes fixed, Eq. (2) is a quadratic in the filters, each on its constraint."""

import torch

from quasinat.arrays import Filters
from quasinat.sparse_coding.proximal import Constraint, project_filters
from quasinat.sparse_coding.statistics import Statistics


@torch.no_grad()
def update_filters(
    filters: Filters,
    statistics: Statistics,
    *,
    constraint: Constraint = "joint",
    zero_mean: bool = False,
    steps: int = 40,
) -> Filters:
    """Projected accelerated gradient on the fidelity (Beck & Teboulle 2009), restarted where it would rise.

        f <- P(g - (A g - b) / L),   g the extrapolation of the last two iterates

    The result's fidelity is never above that of `filters`: a plain projected step of length 1/L lowers the quadratic
    on any closed set, and one that does not (L is estimated) doubles L.

    Args:
        filters: `K C S S`, on the constraint.
        statistics: of the fixed codes and their images, for filters of this size.
        constraint, zero_mean: what the filters keep to, see `project_filters`.
        steps: gradient steps; each costs a K x K convolution, whatever the number of images.
    """
    lipschitz = largest_eigenvalue(statistics, filters)
    if lipschitz == 0:  # no code is active: nothing to fit
        return filters
    cross = statistics.cross

    # A is linear: with A f known at the iterates, it is known at their extrapolation.
    best, at_best = filters, statistics.gram(filters)
    lowest = _quadratic(best, at_best, cross)
    point, at_point, momentum = best, at_best, 1.0
    for _ in range(steps):
        candidate = project_filters(point - (at_point - cross) / lipschitz, constraint, zero_mean=zero_mean)
        at_candidate = statistics.gram(candidate)
        value = _quadratic(candidate, at_candidate, cross)
        if value > lowest:
            if point is best:
                lipschitz *= 2
            point, at_point, momentum = best, at_best, 1.0
            continue
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        along = (momentum - 1) / next_momentum
        point, at_point = candidate + along * (candidate - best), at_candidate + along * (at_candidate - at_best)
        best, at_best, lowest, momentum = candidate, at_candidate, value, next_momentum
    return best


def largest_eigenvalue(statistics: Statistics, like: Filters, iterations: int = 12) -> float:
    """The largest eigenvalue of the quadratic's operator, from below, by the Lanczos iteration."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(like.shape[0], 1, *like.shape[2:], generator=generator).to(like)
    vector, before = vector / torch.linalg.vector_norm(vector), torch.zeros_like(vector)
    diagonal: list[float] = []
    beside: list[float] = [0.0]
    for _ in range(min(iterations, vector.numel())):
        image = statistics.gram(vector) - beside[-1] * before
        diagonal.append(float((image * vector).sum()))
        image = image - diagonal[-1] * vector
        beside.append(float(torch.linalg.vector_norm(image)))
        if beside[-1] <= torch.finfo(like.dtype).eps * max(map(abs, diagonal)):  # the rest is rounding
            break
        vector, before = image / beside[-1], vector
    inner = torch.tensor(beside[1 : len(diagonal)], dtype=torch.float64)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(inner, 1) + torch.diag(inner, -1)
    return float(torch.linalg.eigvalsh(tridiagonal)[-1])


def _quadratic(filters: Filters, gram: Filters, cross: Filters) -> float:
    """The fidelity but for its constant, 1/2 <f, A f> - <f, b>."""
    return float(((gram / 2 - cross) * filters).sum(dtype=torch.float64))
