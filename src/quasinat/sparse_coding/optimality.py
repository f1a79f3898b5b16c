"""How far codes are from optimal, out of the residual and the gradient that one synthesis and one correlation give."""

import torch

from quasinat.arrays import Codes, Images, PerImage


def kkt_violation(gradient: Codes, codes: Codes, sparsity: float) -> PerImage:
    """The largest violation of the optimality conditions, per image, in units of lambda; 0 exactly at an optimum.

    With g = A^T (b - A z), `gradient`, they are g = lambda sign(z) where z is not zero, |g| <= lambda elsewhere.
    """
    violation = torch.where(
        codes == 0,
        (gradient.abs() - sparsity).clamp_min(0),
        (gradient - sparsity * codes.sign()).abs(),
    )
    return violation.flatten(1).amax(1) / (sparsity or 1.0)


def duality_gap(residual: Images, gradient: Codes, codes: Codes, sparsity: float) -> PerImage:
    """A bound on how far the objective at `codes` is above the optimum, per image, in the objective's units.

    For r = b - A z and g = A^T r, theta = s r is feasible in the dual problem (Kim et al. 2007; Massias et al. 2018)

        max <theta, b> - 1/2 ||theta||^2   such that   |A^T theta| <= lambda

    while |s| max |g| <= lambda. Its distance from the primal objective, at the best such s, is

        1/2 (1 - s)^2 ||r||^2 + sum (lambda |z| - s g z),

    in which no term is negative: near the optimum nothing is lost to the difference of two large numbers.
    """
    energy, largest = residual.square().flatten(1).sum(1), gradient.abs().flatten(1).amax(1)
    explained = (gradient * codes).flatten(1).sum(1)
    best = 1 + explained / energy.clamp_min(torch.finfo(energy.dtype).tiny)
    limit = torch.where(largest > 0, sparsity / largest, torch.inf)
    scale = torch.minimum(torch.maximum(best, -limit), limit)
    slack = sparsity * codes.abs().flatten(1).sum(1) - scale * explained
    return (1 - scale).square() * energy / 2 + slack.clamp_min(0)
