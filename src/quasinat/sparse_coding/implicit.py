"""The derivative of T(x) = D z at the optimum of Eq. (2), by the implicit function theorem.

Where the support S and the signs s of z do not change, the optimality conditions D_S^T W^2 (x - D z) = lambda s are
linear, and with (D_S^T W^2 D_S) v = D_S^T g, r = x - D z, the vector-Jacobian products of T with a cotangent g are

    for x         W^2 D v                                                   (D v is g's projection on the active atoms)
    for lambda    - <v, s>
    for f         <g - W^2 D v, dD z> + <W^2 r, dD v>.

(Mairal et al. 2012, section 3; Bertrand et al. 2020.) No iteration of the solver is stored.
"""

from typing import Any

import torch
from torch import Tensor

from quasinat.arrays import Codes, Filters, Images
from quasinat.sparse_coding.convolution import wrap_around
from quasinat.sparse_coding.solution import sparse_codes
from quasinat.sparse_coding.span import solve_on_support


class ImplicitDerivative(torch.autograd.Function):
    """Gives a solved reconstruction its derivative: `(images, filters, sparsity, reconstruction, codes, ...) -> T`."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Images,
        filters: Filters,
        sparsity: Tensor,
        reconstruction: Images,
        codes: Codes,
        weights: Images | None,
        tolerance: float,
        max_steps: int,
    ) -> Images:
        """`reconstruction` as it is; codes are a coalesced sparse tensor, the boundary is circular."""
        ctx.save_for_backward(images, filters, sparsity, reconstruction, codes.indices(), codes.values())
        ctx.shape, ctx.weights, ctx.tolerance, ctx.max_steps = codes.shape, weights, tolerance, max_steps
        return reconstruction.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Images) -> tuple[Tensor | None, ...]:
        """The products above; those that nobody asked for are left out."""
        images, filters, sparsity, reconstruction, indices, values = ctx.saved_tensors
        (cotangent,), weights = cotangents, ctx.weights
        squares = 1.0 if weights is None else weights.square()
        codes = sparse_codes(indices, values, ctx.shape)
        v, synthesis, _ = solve_on_support(
            cotangent, filters, codes, weights=weights, tolerance=ctx.tolerance, max_steps=ctx.max_steps
        )
        projected = squares * synthesis
        for_images = projected if ctx.needs_input_grad[0] else None
        for_filters = for_sparsity = None
        if ctx.needs_input_grad[1]:
            residual = squares * (images - reconstruction)
            size = filters.shape[-1]
            for_filters = filter_gradient(cotangent - projected, codes, size) + filter_gradient(residual, v, size)
        if ctx.needs_input_grad[2]:
            for_sparsity = -(v.values() * values.sign()).sum().view(sparsity.shape)
        return for_images, for_filters, for_sparsity, None, None, None, None, None


def filter_gradient(images: Images, codes: Codes, size: int) -> Filters:
    """The derivative of <images, D z> in the filters: sum over n of x_c[n + m] z_k[n], `K C S S`; z sparse."""
    image, k, row, column = codes.indices()
    windows = wrap_around(images, size).unfold(2, size, 1).unfold(3, size, 1)  # B C H W S S, a view
    patches = windows[image, :, row, column] * codes.values().view(-1, 1, 1, 1)
    return images.new_zeros(codes.shape[1], *patches.shape[1:]).index_add_(0, k, patches)
