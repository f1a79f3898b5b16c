"""The dictionary step: with the codes fixed, Eq. (2) is a quadratic in the filters on a product of spheres."""

import torch

from quasinat.arrays import Filters
from quasinat.sparse_coding.proximal import Constraint, project_unit_norm
from quasinat.sparse_coding.statistics import Statistics


@torch.no_grad()
def update_filters(
    filters: Filters, statistics: Statistics, *, constraint: Constraint = "joint", steps: int = 40
) -> Filters:
    """Projected accelerated gradient on the fidelity (Beck & Teboulle 2009), restarted where it would rise.

        f <- P(g - (A g - b) / L),   g the extrapolation of the last two iterates

    The result's fidelity is never above that of `filters`: a plain projected step of length 1/L lowers the quadratic
    on any closed set, and one that does not (L is estimated) doubles L.

    Args:
        filters: `K C S S`, unit norm under `constraint`.
        statistics: of the fixed codes and their images, for filters of this size.
        steps: gradient steps; each costs a K x K convolution, whatever the number of images.
    """
    lipschitz = largest_eigenvalue(statistics, filters)
    if lipschitz == 0:  # no code is active: nothing to fit
        return filters
    best, lowest = filters, statistics.fidelity(filters)
    point, momentum = best, 1.0
    for _ in range(steps):
        candidate = project_unit_norm(point - statistics.gradient(point) / lipschitz, constraint)
        value = statistics.fidelity(candidate)
        if value > lowest:
            if point is best:
                lipschitz *= 2
            point, momentum = best, 1.0
            continue
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        point = candidate + (momentum - 1) / next_momentum * (candidate - best)
        best, lowest, momentum = candidate, value, next_momentum
    return best


def largest_eigenvalue(statistics: Statistics, like: Filters, iterations: int = 30) -> float:
    """The largest eigenvalue of the quadratic's operator, from below, by power iteration."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(like.shape[0], 1, *like.shape[2:], generator=generator).to(like)
    value = 0.0
    for _ in range(iterations):
        vector = vector / torch.linalg.vector_norm(vector).clamp_min(torch.finfo(like.dtype).tiny)
        vector = statistics.gram(vector)
        value = float(torch.linalg.vector_norm(vector))
    return value
