"""A binary problem made of a model and one image, with an adversarial example planted in it, for `binarisation`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from quasinat.arrays import Images, Logits, PerImage
from quasinat.attacks.budget import Budget, Linf
from quasinat.defended import Defended
from quasinat.errors import InputError

Points = Float[Tensor, "points channels height width"]
Planted = Float[Tensor, "planted channels height width"]
Features = Float[Tensor, "batch features"]
Vector = Float[Tensor, "features"]
Embedding = Callable[[Tensor], Tensor]
RIDGE = 1e-6  # keeps the regression of separable points finite; the paper's has none and is stopped early
ROUNDING = 16  # of the machine's precision: a feature's spread below this is no signal


class BinaryReadout(nn.Module):
    """Two logits -s and s of an image: s is a linear score of its features, above 0 on the planted side.

    The features are standardised by subtraction first: over a small ball they differ only in their last digits.
    """

    centre: Tensor
    direction: Tensor

    def __init__(self, base: nn.Module, embed: Embedding, centre: Vector, direction: Vector) -> None:
        super().__init__()
        self.base, self.embed = base, embed
        self.register_buffer("centre", centre)
        self.register_buffer("direction", direction)
        self.threshold, self.scale = 0.0, 1.0

    def scores(self, features: Features) -> PerImage:
        """The score before threshold and scale."""
        return ((features - self.centre) * self.direction).sum(1)

    def forward(self, images: Images) -> Logits:
        s = self.scale * (self.scores(self.embed(images).flatten(1)) - self.threshold)
        return torch.stack([-s, s], 1)


@dataclass(frozen=True)
class Task:
    """The binary problem of one image.

    Attributes:
        model: images to two logits; class 1 is the planted side.
        separable: whether the readout scores every planted point above every inner one.
        gap: how far the lowest planted logit is above the highest inner one.
    """

    model: nn.Module
    separable: bool
    gap: float


def points_at(image: Images, budget: Budget, share: float, count: int, generator: Generator) -> Points:
    """Random points around one image, `1 C H W`, at a share of its budget, clipped to the box (which shortens some).

    They are corners of an Linf ball, or points of an L2 sphere.
    """
    if count == 0:
        return image[:0]
    noise = torch.stack([budget.unit_noise(image.shape[1:], generator) for _ in range(count)]).to(image)
    around = image.expand_as(noise)
    pattern = noise.sign() if isinstance(budget, Linf) else noise
    return budget.project(around, around + budget.scaled(around, pattern, share))


def planted_task(
    model: nn.Module,
    near: Points,
    planted: Planted,
    *,
    closeness: float = 0.999,
    features: Embedding | None = None,
    batch_size: int = 128,
) -> Task:
    """The model with a binary readout in place of its last layer: 0 on the points `near`, 1 on those planted.

    The arguments are as of `binarisation`. The logits of all these points span at most 1, as in the authors' code, so
    that no loss is flat for want of digits.

    Raises:
        InputError: features that are not finite.
    """
    front, base = (model.transform, model.classifier) if isinstance(model, Defended) and not features else (None, model)
    embed: Embedding = features or _embedding_of(base)

    def embedded(points: Images) -> Features:
        parts = points.split(batch_size)
        return torch.cat([embed(part if front is None else front(part)).flatten(1) for part in parts])

    with torch.no_grad():
        low, high = embedded(near), embedded(planted)
    if not bool(low.isfinite().all() and high.isfinite().all()):
        raise InputError("the model has features that are not finite", "mend it, or leave the image out")
    readout = BinaryReadout(base, embed, *fitted_direction(low, high))
    inside, outside = readout.scores(low), readout.scores(high)
    top, bottom = float(inside.max()), float(outside.min())
    readout.threshold = top + closeness * (bottom - top)
    furthest = float((torch.cat([inside, outside]) - readout.threshold).abs().max())
    readout.scale = 0.5 / furthest if furthest > 0 else 1.0
    return Task(readout if front is None else Defended(front, readout), bottom > top, readout.scale * (bottom - top))


def _embedding_of(base: nn.Module) -> Embedding:
    """What a network computes in front of its last layer, where it says so, else its logits."""
    embed: Embedding = getattr(base, "embed", base)
    return embed


def fitted_direction(
    low: Float[Tensor, "points features"], high: Float[Tensor, "planted features"]
) -> tuple[Vector, Vector]:
    """The mean of all points, and the direction that logistic regression finds from the low ones to the high ones.

    The features are standardised, and the two classes weigh the same; a feature that varies by no more than its
    rounding is left out. Fitted in float64 on the CPU, so that it depends on the device as little as the features do.
    """
    from scipy import optimize  # type: ignore[import-untyped, unused-ignore]

    points = torch.cat([low, high]).cpu().double()
    centre, spread = points.mean(0), points.std(0, correction=0)
    varies = spread > ROUNDING * torch.finfo(low.dtype).eps * points.abs().amax(0)
    inverse = torch.where(varies, 1 / torch.where(varies, spread, 1), 0)
    standard = (points - centre) * inverse
    signs = torch.cat([-torch.ones(len(low)), torch.ones(len(high))]).double()
    weights = torch.cat([torch.full((len(part),), 0.5 / len(part)) for part in (low, high)]).double()

    def loss(values: Any) -> tuple[float, Any]:
        slope = torch.as_tensor(values)
        margins = signs * (standard @ slope[:-1] + slope[-1])
        pull = -weights * signs * torch.sigmoid(-margins)
        value = weights @ nn.functional.softplus(-margins) + RIDGE / 2 * slope[:-1].square().sum()
        return float(value), torch.cat([standard.T @ pull + RIDGE * slope[:-1], pull.sum()[None]]).numpy()

    start = torch.zeros(points.shape[1] + 1, dtype=torch.float64).numpy()
    limits = {"maxiter": 1000, "maxfun": 2000, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-9}
    best = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=limits).x
    slope = torch.from_numpy(best[:-1])
    return centre.to(low), (slope * inverse).to(low)
