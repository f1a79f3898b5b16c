"""ADMM for Eq. (2) in the Fourier domain (the paper, section 3.3; Wohlberg 2016), per-image stopping, batched.

The split is x = y with y sparse and u the scaled dual:

    x <- argmin 1/2 ||D x - s||^2 + rho/2 ||x - (y - u)||^2      (a C x C solve per frequency)
    y <- soft(alpha x + (1 - alpha) y + u, lambda / rho)
    u <- u + alpha x + (1 - alpha) y_old - y

Because y = soft(p, t) and u = clip(p, -t, t) with p = y + u and t = lambda / rho, one tensor p is the whole state and
the three lines above are one: p <- p + alpha (x - y), where x - y = D^H (rho I + D D^H)^-1 (s - D (y - u)) - u by the
Woodbury identity. The maps go a few at a time (`maps_together`), so that what is made of them stays in the cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from quasinat.arrays import Codes, Filters, FilterSpectra, Images, Kernels, PerImage, PerImageBool, Spectra, State
from quasinat.errors import UsageError
from quasinat.sparse_coding.convolution import (
    correlate,
    filter_spectra,
    from_spectra,
    maps_together,
    synthesise,
    to_spectra,
)
from quasinat.sparse_coding.frequency_solve import apply_kernel, gram, woodbury_kernel
from quasinat.sparse_coding.problem import SparseCodingProblem

STORAGE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ADAPTATIONS = 20


class Prepared(NamedTuple):
    """What stays the same over the iterations.

    Attributes:
        images: s; its spectra are `images_hat`.
        weights: of the fidelity, where the problem has a mask.
        filters: f; their spectra are `filters_hat`.
        gram: D D^H per frequency.
        kernel: (rho I + D D^H)^-1 per frequency, for all images or for each.
        penalty: rho at the start.
        threshold: lambda / rho at the start.
        growth: rho now over rho at the start, `B`, where it adapts.
        adaptations: how often it has adapted.
    """

    images: Images
    images_hat: Spectra
    weights: Images | None
    filters: Filters
    filters_hat: FilterSpectra
    gram: Kernels
    kernel: Kernels
    penalty: float
    threshold: float
    growth: PerImage | None
    adaptations: int = 0

    def keep(self, active: PerImageBool | slice) -> "Prepared":
        """The same for some of the images only."""
        return self._replace(
            images=self.images[active],
            images_hat=self.images_hat[active],
            weights=None if self.weights is None else self.weights[active],
            kernel=self.kernel if len(self.kernel) == 1 else self.kernel[active],
            growth=None if self.growth is None else self.growth[active],
        )


@dataclass(frozen=True)
class ADMM:
    """Hyperparameters of the solver.

    Its state is p, `B K H W`, with u as it is at the penalty of the start whatever the present penalty.

    Args:
        tolerance: an image is done when its relative primal and dual residuals are both under it.
        max_steps: iterations at most.
        penalty: rho > 0; `None` is 25 lambda.
        relaxation: alpha, in (0, 2).
        check_every: steps between residual checks (a check costs a good part of a step).
        adaptive: whether each image's rho follows its own residuals at the first twenty checks, and then stays (Boyd et
            al. 2011, section 3.4.1; Wohlberg 2017). For a penalty that may be far from the best. Rules that adapt at
            every step, or for ever, can fall into a cycle far from the optimum.
        storage: the dtype in which the state waits between steps; `None` is the images'. The arithmetic is in the
            images' dtype. Tolerances below about 1e-3 are out of reach for float16, below 7e-3 for bfloat16.

    Raises:
        UsageError: a value outside its range.
    """

    name: ClassVar[str] = "admm"
    tolerance: float = 1e-3
    max_steps: int = 500
    penalty: float | None = None
    relaxation: float = 1.8
    check_every: int = 5
    adaptive: bool = False
    storage: torch.dtype | None = None

    def __post_init__(self) -> None:
        ranges = {
            "tolerance": self.tolerance >= 0,
            "max_steps": self.max_steps >= 0,
            "penalty": self.penalty is None or self.penalty > 0,
            "relaxation": 0 < self.relaxation < 2,
            "check_every": self.check_every >= 1,
            "storage": self.storage is None or self.storage in STORAGE,
        }
        for name, valid in ranges.items():
            if not valid:
                raise UsageError(f"ADMM({name}={getattr(self, name)}) is out of range", f"leave {name} at its default")

    def prepare(self, problem: SparseCodingProblem) -> Prepared:
        """The spectra and the kernel of a circular problem."""
        penalty = self.penalty or 25 * problem.sparsity or 1.0
        filters_hat = filter_spectra(problem.filters, *problem.images.shape[-2:])
        matrices = gram(filters_hat)
        return Prepared(
            images=problem.images,
            images_hat=to_spectra(problem.images),
            weights=problem.weights(),
            filters=problem.filters,
            filters_hat=filters_hat,
            gram=matrices,
            kernel=woodbury_kernel(matrices, penalty),
            penalty=penalty,
            threshold=problem.sparsity / penalty,
            growth=problem.images.new_ones(len(problem.images)) if self.adaptive else None,
        )

    def init(self, problem: SparseCodingProblem) -> State:
        """The cold start: y = u = 0."""
        return problem.images.new_zeros(problem.codes_shape(), dtype=self.storage)

    def load(self, problem: SparseCodingProblem, maps: State) -> State:
        """The state that the maps of an earlier `Solution.state` hold."""
        return maps.to(self.storage or problem.images.dtype, copy=True)

    def maps(self, prepared: Prepared, state: State) -> State:
        """What a `Solution` keeps of a state; the inverse of `load`."""
        return state

    def step(self, prepared: Prepared, state: State) -> State:
        """One iteration, p <- p + alpha (x - y) with x - y = D^H w - u, as (p - alpha u) + D^H (alpha w)."""
        after, fit = self._halfway(prepared, state)
        w_hat = apply_kernel(prepared.kernel, prepared.images_hat - fit)
        return self._finish(prepared, after, from_spectra(self.relaxation * w_hat, *state.shape[-2:]), state.dtype)

    def sparse(self, prepared: Prepared, state: State) -> Codes:
        """y = soft(p, lambda / rho), the sparse variable of a state, in the images' dtype."""
        p = state[:, : len(prepared.filters)].to(prepared.images.dtype)
        return p - p.clamp(-prepared.threshold, prepared.threshold)

    def residual(self, prepared: Prepared, before: State, after: State) -> PerImage:
        """The larger of the relative primal and dual residuals of the step from `before` to `after`, per image.

        r = ||x - y|| / max(||x||, ||y||) and s = ||y_before - y|| / ||u|| (Wohlberg 2017, eq. 11-14). Where the
        denominator is zero (u, if lambda is) the residual is the absolute one.
        """
        return torch.maximum(*self._residuals(prepared, before, after))

    def adapt(self, prepared: Prepared, before: State, after: State) -> Prepared:
        """rho <- rho sqrt(r / s), at most halved or doubled, for each image; the state keeps its meaning."""
        if prepared.growth is None or prepared.adaptations >= ADAPTATIONS:
            return prepared
        primal, dual = self._residuals(prepared, before, after)
        factor = (primal / dual).sqrt().clamp(0.5, 2.0).nan_to_num(1.0)
        growth = (prepared.growth * factor).clamp(1e-3, 1e3)
        kernel = self._kernel(prepared, growth)
        return prepared._replace(growth=growth, kernel=kernel, adaptations=prepared.adaptations + 1)

    def _kernel(self, prepared: Prepared, growth: PerImage) -> Kernels:
        return woodbury_kernel(prepared.gram, growth * prepared.penalty)

    def _point(self, prepared: Prepared, part: State) -> tuple[State, State]:
        """p and u at the present penalty, of a part of the state; u is that of the start over `growth`."""
        p = part.to(prepared.images.dtype)
        u = p.clamp(-prepared.threshold, prepared.threshold)
        if prepared.growth is None:
            return p, u
        y, u = p - u, u / _each(prepared.growth)
        return y + u, u

    def _halfway(self, prepared: Prepared, state: State) -> tuple[State, Spectra]:
        """p - alpha u, and D (y - u) = D (p - 2 u) in the Fourier domain."""
        after = torch.empty_like(state, dtype=prepared.images.dtype)

        def part(maps: slice) -> Spectra:
            p, u = self._point(prepared, state[:, maps])
            torch.add(p, u, alpha=-self.relaxation, out=after[:, maps])
            return synthesise(to_spectra(torch.add(p, u, alpha=-2)), prepared.filters_hat[maps])

        return after, reduce(torch.add, map(part, _parts(prepared)))

    def _finish(self, prepared: Prepared, after: State, w: Images, storage: torch.dtype) -> State:
        """The new state out of p - alpha u and alpha w; its u is again that of the start."""
        for maps in _parts(prepared):
            p = after[:, maps].add_(correlate(prepared.filters[maps], w))
            if prepared.growth is not None:
                growth = _each(prepared.growth)
                p.add_((growth - 1) * p.clamp(-prepared.threshold / growth, prepared.threshold / growth))
        return after.to(storage)

    def _residuals(self, prepared: Prepared, before: State, after: State) -> tuple[PerImage, PerImage]:
        primal, x, y, dual, u = self._squares(prepared, before, after).sqrt()
        return _ratio(primal, torch.maximum(x, y)), _ratio(dual, u)

    def _squares(self, prepared: Prepared, before: State, after: State) -> Tensor:
        """The squared norms of x - y, x, y, y - y_before and u, `5 B`."""

        def part(maps: slice) -> Tensor:
            (p_before, u_before), (p, u) = (self._point(prepared, state[:, maps]) for state in (before, after))
            y_before, y = p_before - u_before, p - u
            x = torch.add(y_before, p - p_before, alpha=1 / self.relaxation)
            return torch.stack([_square(z) for z in (x - y, x, y, y - y_before, u)])

        return reduce(torch.add, map(part, _parts(prepared)))


def _parts(prepared: Prepared) -> Iterator[slice]:
    count = len(prepared.filters)
    together = maps_together(prepared.images, count)
    return (slice(start, min(start + together, count)) for start in range(0, count, together))


def _each(values: PerImage) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _square(maps: Tensor) -> PerImage:
    return torch.linalg.vector_norm(maps.flatten(1), dim=1).square()


def _ratio(numerator: PerImage, denominator: PerImage) -> PerImage:
    return numerator / torch.where(denominator == 0, 1, denominator)
