"""How to differentiate a transformation: the caller names it, it is never an accident.

Only the identity is here yet. It is not the true gradient: an attack that uses it sees the layer as if it changed
nothing (backward pass differentiable approximation, Athalye et al. 2018), and finds less than the true one would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from quasinat.arrays import Images


@dataclass(frozen=True)
class Identity:
    """BPDA with the identity: forward the transformation, backward the gradient as it comes."""

    def apply(self, transform: Callable[[Images], Images], images: Images) -> Images:
        """`transform(images)` whose vector-Jacobian product is the identity."""
        output: Images = _StraightThrough.apply(images, transform)
        return output


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Images, transform: Callable[[Images], Images]) -> Images:
        return transform(images.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Images) -> tuple[Images, None]:
        return gradients[0], None
