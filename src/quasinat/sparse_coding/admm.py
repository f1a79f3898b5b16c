"""ADMM for Eq. (2) in the Fourier domain (the paper, section 3.3; Wohlberg 2016), per-image stopping, batched.

The split is x = y with y sparse and u the scaled dual:

    x <- argmin 1/2 ||D x - s||^2 + rho/2 ||x - (y - u)||^2      (a C x C solve per frequency)
    y <- soft(alpha x + (1 - alpha) y + u, lambda / rho)
    u <- u + alpha x + (1 - alpha) y_old - y

Because y = soft(p, t) and u = clip(p, -t, t) with p = y + u and t = lambda / rho, one tensor p is the whole state and
the three lines above are one: p <- p + alpha (x - y), where x - y = D^H (rho I + D D^H)^-1 (s - D (y - u)) - u.
The maps travel in pairs (`pairs.py`), which halves the transforms.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from quasinat.arrays import FilterSpectra, Kernels, Pairs, PerImage, PerImageBool, Spectra
from quasinat.errors import UsageError
from quasinat.sparse_coding.frequency_solve import correction, woodbury_kernel
from quasinat.sparse_coding.pairs import from_pair_spectra, image_spectra, pair_filter_spectra, to_pair_spectra
from quasinat.sparse_coding.problem import SparseCodingProblem


class Prepared(NamedTuple):
    """What stays the same over the iterations: spectra of images and filters, the Woodbury kernel, lambda / rho."""

    images_hat: Spectra
    filters_hat: FilterSpectra
    kernel: Kernels
    threshold: float

    def keep(self, active: PerImageBool) -> "Prepared":
        """The same for some of the images only."""
        return self._replace(images_hat=self.images_hat[active])


@dataclass(frozen=True)
class ADMM:
    """Hyperparameters of the solver.

    Args:
        tolerance: an image is done when its relative primal and dual residuals are both under it.
        max_steps: iterations at most.
        penalty: rho > 0; `None` is 25 lambda. It stays fixed: rules that adapt it at every step can fall into cycles.
        relaxation: alpha, in (0, 2).
        check_every: steps between residual checks (a check costs a good part of a step).

    Raises:
        UsageError: a value outside its range.
    """

    tolerance: float = 1e-3
    max_steps: int = 500
    penalty: float | None = None
    relaxation: float = 1.8
    check_every: int = 5

    def __post_init__(self) -> None:
        ranges = {
            "tolerance": self.tolerance >= 0,
            "max_steps": self.max_steps >= 0,
            "penalty": self.penalty is None or self.penalty > 0,
            "relaxation": 0 < self.relaxation < 2,
            "check_every": self.check_every >= 1,
        }
        for name, valid in ranges.items():
            if not valid:
                raise UsageError(f"ADMM({name}={getattr(self, name)}) is out of range", f"leave {name} at its default")

    def prepare(self, problem: SparseCodingProblem) -> Prepared:
        """The spectra and the kernel of a problem."""
        height, width = problem.images.shape[-2:]
        penalty = self.penalty or 25 * problem.sparsity or 1.0
        kernel = woodbury_kernel(torch.fft.fft2(problem.filters, s=(height, width)), penalty)
        filters_hat = pair_filter_spectra(problem.filters, height, width)
        return Prepared(image_spectra(problem.images), filters_hat, kernel, problem.sparsity / penalty)

    def init(self, problem: SparseCodingProblem) -> Pairs:
        """The cold start: y = u = 0."""
        batch, _, height, width = problem.images.shape
        return problem.images.new_zeros(batch, (len(problem.filters) + 1) // 2, height, width, 2)

    def step(self, prepared: Prepared, state: Pairs) -> Pairs:
        """One iteration, p <- p + alpha (x - y)."""
        u = state.clamp(-prepared.threshold, prepared.threshold)
        v_hat = to_pair_spectra(torch.add(state, u, alpha=-2))  # y - u = p - 2 u
        d_hat = correction(v_hat, prepared.images_hat, prepared.filters_hat, prepared.kernel)
        x_minus_y = from_pair_spectra(d_hat).sub_(u)
        return x_minus_y.mul_(self.relaxation).add_(state)

    def sparse(self, prepared: Prepared, state: Pairs) -> Pairs:
        """y = soft(p, lambda / rho), the sparse variable of a state."""
        return state - state.clamp(-prepared.threshold, prepared.threshold)

    def residual(self, prepared: Prepared, before: Pairs, after: Pairs) -> PerImage:
        """The larger of the relative primal and dual residuals of the step from `before` to `after`, per image.

        r = ||x - y|| / max(||x||, ||y||) and s = ||y_before - y|| / ||u|| (Wohlberg 2017, eq. 11-14). Where the
        denominator is zero (u, if lambda is) the residual is the absolute one.
        """
        y_before, y = self.sparse(prepared, before), self.sparse(prepared, after)
        x = y_before + (after - before) / self.relaxation
        primal = _ratio(_norm(x - y), torch.maximum(_norm(x), _norm(y)))
        return torch.maximum(primal, _ratio(_norm(y_before - y), _norm(after - y)))


def _norm(codes: Pairs) -> PerImage:
    return torch.linalg.vector_norm(codes.flatten(1), dim=1)


def _ratio(numerator: PerImage, denominator: PerImage) -> PerImage:
    return numerator / torch.where(denominator == 0, 1, denominator)
