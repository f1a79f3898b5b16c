"""A fixed number of the ADMM's iterations (`sparse_coding/admm.py`, Eq. 2) in real arithmetic, a dictionary an image.

With p = y + u, u = clip(p, t) and t = lambda / rho, a step is

    w <- F^-1 [(rho I + D D^H)^-1 F (s - D (p - 2 u))]
    p <- p + alpha (D^T w - u)

and x of that step has D x = s - rho w, because x = (y - u) + D^T w and rho w + D D^T w = s - D (y - u). This is what is
handed back: after few steps it is nearer to T(x) than D y, and it costs nothing. The step is traced by torch, hence
without run-time type checks.
"""

from typing import no_type_check

import torch
from torch import Tensor, nn

from quasinat.arrays import Filters
from quasinat.export.circular import as_matrices, overlaid, patches
from quasinat.export.fourier import RealFourier, real_kernel

PENALTY = 25  # rho over lambda
RELAXATION = 1.95


class FixedADMM(nn.Module):
    """`steps` iterations from a cold start or from the maps of an earlier call.

    Args:
        filters: of each stratum, `M K C S S`.
        sparsity: lambda.
        steps: iterations.
        height, width: of the images.
    """

    analysis: Tensor
    synthesis: Tensor
    kernels: Tensor
    scales: Tensor
    limit: Tensor

    def __init__(self, filters: Tensor, sparsity: float, steps: int, height: int, width: int) -> None:
        super().__init__()
        self.channels, self.size = filters.shape[2:4]
        self.steps, self.height, self.width = steps, height, width
        self.penalty = PENALTY * sparsity or 1.0
        self.threshold = sparsity / self.penalty
        self.fourier = RealFourier(height, width, filters)
        analysis = torch.stack([as_matrices(each) for each in filters])
        self.register_buffer("analysis", analysis)
        self.register_buffer("synthesis", analysis.mT.contiguous())
        kernels = [real_kernel(each, self.penalty, height, width) for each in filters]
        self.register_buffer("kernels", torch.stack(kernels))
        self.register_buffer("scales", torch.stack([_scale(each) for each in filters]))
        self.register_buffer("limit", torch.tensor(steps))

    def cold(self, coded: Tensor, members: Tensor) -> Tensor:
        """Where a lone image starts, `B K (H W)`: D^T s over the mean eigenvalue of D D^T, nearer than zero."""
        return self.scales[members, None, None] * (self.analysis[members] @ patches(coded, self.size))

    def forward(self, coded: Tensor, members: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The iterations on the coded band `B C H W` of images of these strata, from maps `B K (H W)`.

        Returns:
            s - D x, what the dictionaries leave of the band, and the maps.
        """
        return self._iterate(coded, maps, self.analysis[members], self.synthesis[members], self.kernels[members])

    @no_type_check
    def _iterate(self, coded, maps, analysis, synthesis, kernels):
        def step(maps):
            clipped = maps.clamp(-self.threshold, self.threshold)
            fit = overlaid(synthesis @ (maps - 2 * clipped), self.channels, self.size, self.height, self.width)
            spectra = self.fourier.spectra(coded - fit)
            w = self.fourier.images((kernels * spectra[:, None]).sum(2))
            return maps + RELAXATION * (analysis @ patches(w, self.size) - clipped), w

        if torch.compiler.is_compiling():  # one step in the graph, however many are taken
            from torch._higher_order_ops import while_loop

            def goes_on(done, maps, w):
                return done < self.limit

            def once(done, maps, w):
                return done + 1, *step(maps)

            _, maps, w = while_loop(goes_on, once, (torch.zeros_like(self.limit), maps, torch.zeros_like(coded)))
        else:
            for _ in range(self.steps):
                maps, w = step(maps)
        return self.penalty * w, maps


def _scale(filters: Filters) -> Tensor:
    """One over the mean eigenvalue of D D^T, which is the filters' energy in a channel."""
    return filters.shape[1] / filters.square().sum()
