"""The proximal maps of the solver: the soft threshold of the codes and the projection of the filters."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Filters
from quasinat.errors import UsageError, did_you_mean

Constraint = Literal["per-channel", "joint"]


def soft_threshold(values: Float[Tensor, "*shape"], threshold: float) -> Float[Tensor, "*shape"]:
    """prox of threshold * ||.||_1: argmin_y 1/2 (y - v)^2 + threshold |y|, elementwise. Exact zeros inside."""
    return values - values.clamp(-threshold, threshold)


def project_unit_norm(filters: Filters, constraint: Constraint) -> Filters:
    """The nearest filters `K C S S` of unit norm: each channel's (Eq. 2), or each filter's over all its channels.

    A filter that is exactly zero has no direction: it is left at zero.

    Raises:
        UsageError: the constraint is not a known one.
    """
    if constraint not in get_args(Constraint):
        known = list(get_args(Constraint))
        raise UsageError(f"unknown filter constraint {constraint!r}", did_you_mean(str(constraint), known))
    axes = (2, 3) if constraint == "per-channel" else (1, 2, 3)
    norms = torch.linalg.vector_norm(filters, dim=axes, keepdim=True)
    return torch.where(norms > 0, filters / norms.clamp_min(torch.finfo(filters.dtype).tiny), filters)
