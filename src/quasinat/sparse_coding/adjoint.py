"""How to differentiate a transformation: the caller names it, it is never an accident.

| adjoint | the gradient of | what it is worth to an attack |
| --- | --- | --- |
| `Identity` | the image itself (BPDA, Athalye et al. 2018) | not the true gradient: it finds less than there is |
| `Unrolled` | a number of ADMM steps | approaches the true one with the steps; slow |
| `Implicit` | the optimum itself | the true gradient; far cheaper than the forward solve |
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from quasinat.arrays import Filters, Images
from quasinat.errors import UsageError
from quasinat.sparse_coding.auto import Auto
from quasinat.sparse_coding.boundary import Boundary, crop, extend
from quasinat.sparse_coding.implicit import ImplicitDerivative
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.solve import Solver, chosen_solver, solve
from quasinat.sparse_coding.unrolled import UnrolledDerivative


@dataclass(frozen=True)
class Identity:
    """BPDA with the identity: forward the transformation, backward the gradient as it comes."""

    def apply(self, transform: Callable[[Images], Images], images: Images) -> Images:
        """`transform(images)` whose vector-Jacobian product is the identity.

        Args:
            transform: images to images of the same shape.
            images: `B C H W`.

        Examples:
            >>> import torch
            >>> from quasinat import Identity
            >>> images = torch.rand(1, 1, 2, 2, requires_grad=True)
            >>> Identity().apply(torch.round, images).sum().backward()
            >>> images.grad.flatten()
            tensor([1., 1., 1., 1.])
        """
        output: Images = _StraightThrough.apply(images, transform)
        return output


@dataclass(frozen=True)
class Unrolled:
    """Forward `steps` iterations of ADMM from zero, backward through each of them.

    Args:
        steps: iterations. Measured on CIFAR-10, the cosine of 25 / 50 / 100 with the true gradient is in
            `docs/performance.md`.
        penalty: rho; `None` is 25 lambda.
        relaxation: alpha, in (0, 2).
    """

    steps: int = 100
    penalty: float | None = None
    relaxation: float = 1.8

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.relaxation < 2 or (self.penalty is not None and self.penalty <= 0):
            raise UsageError(f"{self} is out of range", "give at least one step, and leave the rest at its default")


@dataclass(frozen=True)
class Implicit:
    """The derivative at the optimum, the support and the signs of the codes held fixed.

    Args:
        forward_tolerance: the forward solver's own tolerance is tightened to this: the derivative at codes that are not
            optimal is not a derivative.
        kkt: an image whose KKT residual is above this (in units of lambda) is not trusted; `fallback` serves.
        tolerance, max_steps: of the conjugate gradients on the support.
        fallback: for images that are not trusted.
        on_fallback: called with how many images fell back and of how many; `None` warns.
    """

    forward_tolerance: float = 1e-4
    kkt: float = 1e-2
    tolerance: float = 1e-4
    max_steps: int = 500
    fallback: Unrolled = Unrolled()
    on_fallback: Callable[[int, int], None] | None = None


Adjoint = Identity | Unrolled | Implicit


def reconstruct(
    images: Images,
    filters: Filters,
    sparsity: float | Tensor,
    adjoint: Adjoint,
    *,
    solver: str | Solver = "auto",
    boundary: Boundary = "circular",
    mask: Tensor | None = None,
) -> Images:
    """T(x) of Eq. (2), differentiable in images, filters and lambda as `adjoint` says (`Identity`: images only).

    Args:
        images: x, `B C H W`.
        filters: f, `K C S S`.
        sparsity: lambda; a tensor of one element to differentiate in it.
        adjoint: which derivative.
        solver: of the forward pass (`Unrolled` runs ADMM).
        boundary, mask: as in `SparseCodingProblem`; the derivative is not taken in the mask.

    Raises:
        UsageError: `Unrolled` with a mask.

    Examples:
        With a filter of one pixel the true derivative is one where |x| is above lambda, and zero below:

        >>> import torch
        >>> from quasinat.sparse_coding import Implicit, reconstruct
        >>> pixel = torch.zeros(1, 1, 3, 3)
        >>> pixel[0, 0, 0, 0] = 1
        >>> images = torch.tensor([0.1, 0.5, 0.9]).repeat(3, 1).view(1, 1, 3, 3).requires_grad_()
        >>> reconstruct(images, pixel, 0.2, Implicit()).sum().backward()
        >>> images.grad[0, 0, 0].round(decimals=3)
        tensor([0., 1., 1.])
    """
    weight = torch.as_tensor(sparsity, dtype=images.dtype, device=images.device)
    circular = SparseCodingProblem(
        images.detach(), filters.detach(), float(weight.detach()), boundary=boundary, mask=mask
    ).circular()
    if isinstance(adjoint, Identity):
        problem = replace(circular, images=images.detach(), boundary=boundary, mask=mask)
        return adjoint.apply(lambda _: solve(problem, solver, codes="sparse").reconstruction, images)
    extended = images if circular.mask is None else torch.where(_seen(circular, images, mask), images, 0)
    extended = extend(extended, boundary, filters.shape[-1])
    if isinstance(adjoint, Unrolled):
        if mask is not None:
            raise UsageError("Unrolled knows no masks", "use Implicit(), which does")
        output = _unrolled(extended, filters, weight, adjoint)
    else:
        output = _implicit(extended, filters, weight, circular, adjoint, solver)
    return crop(output, boundary, filters.shape[-1])


def _seen(circular: SparseCodingProblem, images: Images, mask: Tensor | None) -> Tensor:
    assert mask is not None
    return mask.to(images).expand_as(images) != 0


def _unrolled(images: Images, filters: Filters, sparsity: Tensor, adjoint: Unrolled) -> Images:
    output: Images = UnrolledDerivative.apply(
        images, filters, sparsity, adjoint.steps, adjoint.penalty, adjoint.relaxation
    )
    return output


def _implicit(
    images: Images,
    filters: Filters,
    sparsity: Tensor,
    circular: SparseCodingProblem,
    adjoint: Implicit,
    solver: str | Solver,
) -> Images:
    solution = solve(circular, tightened(circular, solver, adjoint.forward_tolerance), codes="sparse")
    trusted = solution.kkt_residual <= adjoint.kkt
    output: Images = ImplicitDerivative.apply(
        images,
        filters,
        sparsity,
        solution.reconstruction,
        solution.codes,
        circular.mask,
        adjoint.tolerance,
        adjoint.max_steps,
    )
    if bool(trusted.all()):
        return output
    count = int((~trusted).sum())
    if adjoint.on_fallback:
        adjoint.on_fallback(count, len(trusted))
    else:
        warnings.warn(
            f"{count} of {len(trusted)} images are not solved well enough for the implicit gradient; "
            f"they fall back to {adjoint.fallback}",
            stacklevel=4,
        )
    if circular.mask is not None:
        raise UsageError("images with a mask are not solved well enough", "lower the solver's tolerance")
    rows = (~trusted).nonzero().flatten()
    return output.index_copy(0, rows, _unrolled(images[rows], filters, sparsity, adjoint.fallback))


def tightened(problem: SparseCodingProblem, solver: str | Solver, tolerance: float) -> Solver:
    """The solver that `solve` would run, with a tolerance of at most `tolerance` and the steps that this may take."""
    chosen = chosen_solver(problem, solver)
    if isinstance(chosen, Auto):
        chosen = chosen.pick(problem)
    values: Any = {"tolerance": min(chosen.tolerance, tolerance), "max_steps": max(chosen.max_steps, 500)}
    return replace(chosen, **values)  # type: ignore[type-var]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Images, transform: Callable[[Images], Images]) -> Images:
        return transform(images.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Images) -> tuple[Images, None]:
        return gradients[0], None
