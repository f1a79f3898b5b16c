"""What a solver reports about its codes, from one synthesis and one correlation."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import CodesBeyond, Images, PerImage
from quasinat.sparse_coding.boundary import crop
from quasinat.sparse_coding.convolution import convolve, correlate
from quasinat.sparse_coding.optimality import duality_gap, kkt_violation
from quasinat.sparse_coding.problem import SparseCodingProblem


class Evaluation(NamedTuple):
    """The fields of the same names of a `Solution`."""

    reconstruction: Images
    objective: PerImage
    kkt_residual: PerImage
    duality_gap: PerImage


@torch.no_grad()
def evaluate(problem: SparseCodingProblem, codes: CodesBeyond) -> Evaluation:
    """Reconstruction, objective, KKT residual and duality gap of `codes`, dense or sparse; any boundary and mask."""
    circular, filters, sparsity = problem.circular(), problem.filters, problem.sparsity
    codes = codes.to_dense() if codes.is_sparse else codes
    synthesis: Float[Tensor, "batch channels _ _"] = convolve(filters, codes)
    # With weights w the problem is that of A = w D and b = w x.
    residual = circular.images - synthesis
    if circular.mask is not None:
        residual = circular.mask * residual
    gradient = correlate(filters, residual if circular.mask is None else circular.mask * residual)
    objective = residual.square().flatten(1).sum(1) / 2 + sparsity * codes.abs().flatten(1).sum(1)
    return Evaluation(
        reconstruction=crop(synthesis, problem.boundary, filters.shape[-1]),
        objective=objective,
        kkt_residual=kkt_violation(gradient, codes, sparsity),
        duality_gap=duality_gap(residual, gradient, codes, sparsity),
    )
