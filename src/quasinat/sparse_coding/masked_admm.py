"""ADMM for Eq. (2) with a mask, by mask decoupling (Heide et al. 2015; SPORCO's ConvBPDNMaskDcpl).

A second split, D x = y_0 with scaled dual u_0 and penalty sigma, takes the weights w out of the linear solve:

    x <- argmin sigma/2 ||D x - (y_0 - u_0)||^2 + rho/2 ||x - (y - u)||^2     (that of the ADMM, at rho / sigma)
    y_0 <- argmin 1/2 ||w (y_0 - s)||^2 + sigma/2 ||y_0 - q||^2 = (w^2 s + sigma q) / (w^2 + sigma)

with q = alpha D x + (1 - alpha) y_0 + u_0; y and u as in `admm.py`. Like p = y + u, q = y_0 + u_0 is the whole state of
its split and moves by q <- q + alpha (D x - y_0). With e = (rho / sigma I + D D^H)^-1 (y_0 - u_0 - D (y - u)), D x is
y_0 - u_0 - rho / sigma e, without another synthesis; and y_0 - u_0 = q - 2 u_0.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from quasinat.arrays import Images, Kernels, PerImage, State
from quasinat.sparse_coding.admm import ADMM, Prepared, _each, _square
from quasinat.sparse_coding.convolution import from_spectra, to_spectra
from quasinat.sparse_coding.frequency_solve import apply_kernel, woodbury_kernel
from quasinat.sparse_coding.problem import SparseCodingProblem


@dataclass(frozen=True)
class MaskedADMM(ADMM):
    """The hyperparameters of `ADMM`, and one more. The state is p and below it q, `B K+C H W`.

    Args:
        fit_penalty: sigma > 0, in units of the weights squared.
    """

    name: ClassVar[str] = "masked-admm"
    fit_penalty: float = 0.5

    def prepare(self, problem: SparseCodingProblem) -> Prepared:
        """The spectra and the kernel of a circular problem, whose mask may be `None` for ones."""
        prepared = super().prepare(problem)
        weights = torch.ones_like(problem.images) if prepared.weights is None else prepared.weights
        kernel = woodbury_kernel(prepared.gram, prepared.penalty / self.fit_penalty)
        return prepared._replace(weights=weights, kernel=kernel)

    def init(self, problem: SparseCodingProblem) -> State:
        """The cold start: y = u = 0 and y_0 = u_0 = 0."""
        batch, filters, height, width = problem.codes_shape()
        shape = (batch, filters + problem.images.shape[1], height, width)
        return problem.images.new_zeros(shape, dtype=self.storage)

    def step(self, prepared: Prepared, state: State) -> State:
        """One iteration, p <- p + alpha (x - y) and q <- q + alpha (D x - y_0), D x - y_0 = -u_0 - rho / sigma e."""
        filters = len(prepared.filters)
        after, fit = self._halfway(prepared, state)
        q, u0 = self._fit_point(prepared, state[:, filters:])
        e_hat = apply_kernel(prepared.kernel, to_spectra(q - 2 * u0) - fit)
        e = from_spectra(self.relaxation * e_hat, *state.shape[-2:])
        q = q - self.relaxation * u0 - prepared.penalty / self.fit_penalty * e
        if prepared.growth is not None:
            growth = _each(prepared.growth)
            q = q + (growth - 1) * (q - self._fit(prepared, q, growth))
        after[:, filters:] = q
        return self._finish(prepared, after, e, state.dtype)

    def _kernel(self, prepared: Prepared, growth: PerImage) -> Kernels:
        return prepared.kernel  # rho and sigma grow together

    def _fit_point(self, prepared: Prepared, part: State) -> tuple[Images, Images]:
        """q and u_0 at the present penalty, of that part of the state."""
        q = part.to(prepared.images.dtype)
        u0 = q - self._fit(prepared, q, 1.0)
        if prepared.growth is None:
            return q, u0
        y0, u0 = q - u0, u0 / _each(prepared.growth)
        return y0 + u0, u0

    def _fit(self, prepared: Prepared, q: Images, growth: Tensor | float) -> Images:
        """y_0 = (w^2 s + sigma q) / (w^2 + sigma)."""
        assert prepared.weights is not None
        square, sigma = prepared.weights.square(), self.fit_penalty * growth
        return (square * prepared.images + sigma * q) / (square + sigma)

    def _squares(self, prepared: Prepared, before: State, after: State) -> Tensor:
        """The squared norms of both splits together, the second weighted by sigma / rho."""
        filters = len(prepared.filters)
        (q_before, u_before), (q, u) = (self._fit_point(prepared, z[:, filters:]) for z in (before, after))
        y_before, y = q_before - u_before, q - u
        dx = y_before + (q - q_before) / self.relaxation
        fit = torch.stack([_square(z) for z in (dx - y, dx, y, y - y_before, u)])
        return super()._squares(prepared, before, after) + self.fit_penalty / prepared.penalty * fit
