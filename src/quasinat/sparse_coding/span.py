"""Least squares on the span of an image's active atoms, by conjugate gradients: the linear algebra of the derivative.

With S the support of the codes, it solves (D_S^T W^2 D_S) v = D_S^T g for each image: CGLS (Hestenes & Stiefel 1952;
Björck 1996, section 7.4) where W is one and the compiled kernel is there, else conjugate gradients on the normal
equations with v held to zero off the support. Both have a memory that does not grow with the steps.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from quasinat.arrays import Codes, Filters, Images, PerImageInt
from quasinat.sparse_coding._kernels import binding
from quasinat.sparse_coding.convolution import convolve, correlate
from quasinat.sparse_coding.coordinate_descent import available, to_kernel
from quasinat.sparse_coding.solution import sparse_codes


class SpanSolution(NamedTuple):
    """v, `B K H W` as a sparse tensor on the support; D v, `B C H W`; the steps taken."""

    coefficients: Codes
    synthesis: Images
    steps: PerImageInt


@torch.no_grad()
def solve_on_support(
    images: Images,
    filters: Filters,
    support: Codes,
    *,
    weights: Images | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 500,
) -> SpanSolution:
    """v with (D_S^T W^2 D_S) v = D_S^T g on each image's support; the least-norm one where the atoms are dependent.

    Without weights D v is the orthogonal projection of g on the span of the active atoms.

    Args:
        images: g, `B C H W`.
        filters: `K C S S`.
        support: a coalesced sparse tensor `B K H W`; its entries that are not zero are S.
        weights: W, `B C H W`, or `None` for ones.
        tolerance: stop when the residual of these equations is this share of what it was at v = 0.
        max_steps: at most.
    """
    on_kernel = images.device.type == "cpu" and images.dtype in binding.SUFFIXES and not available()
    if weights is None and on_kernel:
        return _by_kernel(images, filters, support, tolerance, max_steps)
    return _by_torch(images, filters, support, weights, tolerance, max_steps)


def _by_kernel(images: Images, filters: Filters, support: Codes, tolerance: float, max_steps: int) -> SpanSolution:
    options = binding.Options(0.0, tolerance, 0.0, max_steps, 0, torch.get_num_threads())
    places = to_kernel(support)
    synthesis, values, steps = binding.span(images.contiguous(), filters.contiguous(), options, places)
    coefficients = sparse_codes(support.indices(), values, support.shape)
    return SpanSolution(coefficients, synthesis, steps)


def _by_torch(
    images: Images, filters: Filters, support: Codes, weights: Images | None, tolerance: float, max_steps: int
) -> SpanSolution:
    on = support.to_dense() != 0
    squares = None if weights is None else weights.square()

    def normal(v: Codes) -> Codes:
        synthesis = convolve(filters, v)
        return correlate(filters, synthesis if squares is None else squares * synthesis) * on

    residual = correlate(filters, images) * on
    v, direction = torch.zeros_like(residual), residual
    norm = _dot(residual, residual)
    enough = tolerance**2 * norm
    steps = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for _ in range(max_steps):
        active = norm > enough
        if not bool(active.any()):
            break
        applied = normal(direction)
        curvature = _dot(direction, applied)
        length = torch.where(active & (curvature > 0), norm / curvature, 0)
        v = v + _each(length) * direction
        residual = residual - _each(length) * applied
        before, norm = norm, torch.where(active, _dot(residual, residual), norm)
        direction = torch.where(_each(active), residual + _each(norm / before.clamp_min(1e-300)) * direction, direction)
        steps += active
    values = v[tuple(support.indices())]
    coefficients = sparse_codes(support.indices(), values, support.shape)
    return SpanSolution(coefficients, convolve(filters, v), steps)


def _dot(a: Codes, b: Codes) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _each(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
