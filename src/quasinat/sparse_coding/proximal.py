"""The proximal maps of the solver: the soft threshold of the codes and the projection of the filters."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Filters
from quasinat.errors import UsageError, did_you_mean

Constraint = Literal["per-channel", "joint", "at-most-one"]


def soft_threshold(values: Float[Tensor, "*shape"], threshold: float) -> Float[Tensor, "*shape"]:
    """prox of threshold * ||.||_1: argmin_y 1/2 (y - v)^2 + threshold |y|, elementwise. Exact zeros inside.

    Args:
        values: v, of any shape.
        threshold: at least 0.

    Examples:
        >>> import torch
        >>> from quasinat.sparse_coding import soft_threshold
        >>> soft_threshold(torch.tensor([-3.0, -0.5, 0.5, 2.0]), 1.0)
        tensor([-2.,  0.,  0.,  1.])
    """
    return values - values.clamp(-threshold, threshold)


def project_filters(filters: Filters, constraint: Constraint, *, zero_mean: bool = False) -> Filters:
    """The nearest filters `K C S S` that a dictionary may have.

    | constraint | each filter |
    | --- | --- |
    | "per-channel" | has unit norm in each of its channels (Eq. 2) |
    | "joint" | has unit norm over all its channels (the authors' released filters) |
    | "at-most-one" | has a norm over all its channels of at most one: the convex hull of "joint" |

    A filter (or channel) that is exactly zero has no direction: it is left at zero.

    Args:
        filters: `K C S S`.
        constraint: see the table.
        zero_mean: whether the mean of each channel is zero too. The mean is taken off first, which is exact: it is a
            projection on a subspace, and the norms' constraint is one on the rest.

    Raises:
        UsageError: the constraint is not a known one.

    Examples:
        >>> import torch
        >>> from quasinat.sparse_coding import project_filters
        >>> filters = torch.full((1, 2, 2, 2), 3.0)
        >>> [round(float(project_filters(filters, name).norm()), 4) for name in ("per-channel", "joint", "at-most-one")]
        [1.4142, 1.0, 1.0]
    """
    if constraint not in get_args(Constraint):
        known = list(get_args(Constraint))
        raise UsageError(f"unknown filter constraint {constraint!r}", did_you_mean(str(constraint), known))
    if zero_mean:
        filters = filters - filters.mean((2, 3), keepdim=True)
    axes = (2, 3) if constraint == "per-channel" else (1, 2, 3)
    norms = torch.linalg.vector_norm(filters, dim=axes, keepdim=True)
    if constraint == "at-most-one":
        return filters / norms.clamp_min(1)
    return torch.where(norms > 0, filters / norms.clamp_min(torch.finfo(filters.dtype).tiny), filters)
