"""The derivative of a fixed number of ADMM iterations, by differentiating each of them (Gregor & LeCun 2010)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from quasinat.arrays import Filters, Images, State
from quasinat.sparse_coding.convolution import convolve, correlate, filter_spectra, from_spectra, to_spectra
from quasinat.sparse_coding.frequency_solve import apply_kernel, gram, woodbury_kernel


def unrolled_reconstruction(
    images: Images, filters: Filters, sparsity: Tensor, steps: int, penalty: float | None, relaxation: float
) -> Images:
    """T after `steps` iterations of `ADMM` from zero, out of operations that autograd knows; circular, no mask.

    The segments between checkpoints are run again on the way back, so that memory grows with the root of `steps`.
    """
    height, width = images.shape[-2:]
    rho = sparsity.new_tensor(penalty) if penalty else 25 * sparsity
    kernel = woodbury_kernel(gram(filter_spectra(filters, height, width)), rho.view(1))
    threshold = sparsity / rho

    def step(p: State) -> State:
        u = torch.maximum(torch.minimum(p, threshold), -threshold)
        fit = apply_kernel(kernel, to_spectra(images - convolve(filters, p - 2 * u)))
        return p + relaxation * (correlate(filters, from_spectra(fit, height, width)) - u)

    def run(p: State, count: int) -> State:
        for _ in range(count):
            p = step(p)
        return p

    p = images.new_zeros(len(images), len(filters), height, width)
    segment = max(1, math.isqrt(steps))
    for start in range(0, steps, segment):
        count = min(segment, steps - start)
        p = checkpoint(run, p, count, use_reentrant=False) if torch.is_grad_enabled() else run(p, count)
    return convolve(filters, p - torch.maximum(torch.minimum(p, threshold), -threshold))


class UnrolledDerivative(torch.autograd.Function):
    """`unrolled_reconstruction` that keeps only its inputs until its derivative is asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Images,
        filters: Filters,
        sparsity: Tensor,
        steps: int,
        penalty: float | None,
        relaxation: float,
    ) -> Images:
        """T after `steps` iterations."""
        ctx.save_for_backward(images, filters, sparsity)
        ctx.hyperparameters = steps, penalty, relaxation
        return unrolled_reconstruction(images, filters, sparsity, steps, penalty, relaxation)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Images) -> tuple[Tensor | None, ...]:
        """The iterations again, with a graph, and back through it."""
        inputs = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        with torch.enable_grad():
            output = unrolled_reconstruction(*inputs, *ctx.hyperparameters)
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        gradients = iter(torch.autograd.grad(output, wanted, cotangents))
        return *(next(gradients) if tensor.requires_grad else None for tensor in inputs), None, None, None
