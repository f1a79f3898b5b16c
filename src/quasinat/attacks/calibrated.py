"""One strength for all images, such that they move as far as wanted on average."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels
from quasinat.attacks.budget import Budget, Dissimilarity, Linf
from quasinat.attacks.checks import check_count, check_images, check_number
from quasinat.attacks.result import AttackResult
from quasinat.errors import InputError, UsageError


def calibrated(
    attack: Callable[..., AttackResult],
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    target: Dissimilarity,
    kind: Callable[[float], Budget] = Linf,
    targets: Labels | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 30,
    batch_size: int | None = None,
    **options: Any,
) -> AttackResult:
    """The attack at that one strength at which the *mean* L2-dissimilarity over all images is the target.

    The protocol of the paper's predecessors (Guo et al. 2018, section 5.1, whose L2-dissimilarity is a mean over the
    images): the budget of FGSM or BIM is one number for the whole set, found here by a bracketed search (each try
    attacks the whole set; the next strength is where the straight line through the bracket's ends meets the target).
    The mean is of the images as returned, after clipping.

    Here, by design, an image's result depends on the images beside it: give the whole set at once. Under
    `Dissimilarity` as the attack's own budget it would not, and no image would exceed the target. The mean grows with
    the strength but for leaps where an image's iterated attack turns elsewhere; with N images they are of order 1 / N,
    and a tolerance below them may not be reachable.

    `stats` holds each image's `dissimilarity` and the `strength` found, the same number for each; `queries` are those
    of all tries together.

    Args:
        attack: a function of this room that takes `budget`.
        model: images to logits.
        images: `B C H W` in [0, 1], none of them black.
        labels: the true classes.
        target: the mean wanted.
        kind: makes a budget of a strength.
        targets: the classes wanted, if the attack is to be targeted.
        tolerance: relative to the target.
        max_steps: tries at most.
        batch_size: images attacked at a time; all by default.
        options: of the attack.

    Raises:
        InputError: no images, a black one, or what the attack refuses.
        UsageError: the target is infinite, beyond what the attack reaches at any strength, or not met within the
            tolerance in `max_steps` tries; or what the attack refuses.
    """
    check_number("target", target.value, zero=True)
    check_number("tolerance", tolerance)
    check_count("max_steps", max_steps)
    _check_measurable(images)
    at_once = len(images) if batch_size is None else batch_size
    check_count("batch_size", at_once)
    batches = torch.arange(len(images), device=images.device).split(at_once)
    queries = torch.zeros_like(labels)

    def at(strength: float) -> tuple[AttackResult, Tensor]:
        parts = []
        for rows in batches:
            aim = {} if targets is None else {"targets": targets[rows]}
            parts.append(attack(model, images[rows], labels[rows], budget=kind(strength), **aim, **options))
        result = _joined(parts)
        return result, target.measure(images.detach(), result.images).to(torch.float64)

    search = _Search(target.value)
    for _ in range(max_steps):
        result, moved = at(search.strength)
        queries = queries + result.queries
        mean = float(moved.mean())
        if abs(mean - target.value) <= tolerance * target.value:
            found = {"dissimilarity": moved.to(images), "strength": torch.full_like(moved, search.strength)}
            return AttackResult(result.images, result.success, queries, {**result.stats, **found})
        if mean < target.value and _whole_box(kind(search.strength), images):
            problem = f"the attack moves the images by {mean:.4g} on average where only the box [0, 1] holds it"
            raise UsageError(problem, f"give a mean L2-dissimilarity below that instead of {target.value:.4g}")
        search.tried(mean)
    raise UsageError(
        f"after {max_steps} tries the mean L2-dissimilarity is not yet {target.value:.4g}: {search}",
        "loosen the tolerance, allow more steps, or give more images: the mean of a few leaps as their attack turns",
    )


class _Search:
    """Where an increasing function of the strength, 0 at 0, meets a target: regula falsi with the Illinois rule.

    Until a strength is too large the next one is proportional to the target; from the third on it doubles at least.
    """

    def __init__(self, target: float) -> None:
        self.target, self.strength = target, target
        self.low, self.below = 0.0, -target
        self.high, self.above = math.inf, math.inf
        self.means: dict[float, float] = {0.0: 0.0}
        self.side = 0

    def tried(self, mean: float) -> None:
        """Notes the mean at `strength` and sets the next one."""
        self.means[self.strength] = mean
        side = 1 if mean > self.target else -1
        if side > 0:
            self.high, self.above = self.strength, mean - self.target
        else:
            self.low, self.below = self.strength, mean - self.target
        if math.isinf(self.high):
            growth = self.target / mean if mean > 0 else math.inf
            self.strength *= min(max(growth, 1.0 if len(self.means) == 2 else 2.0), 16.0)
            return
        if (
            side == self.side and side > 0
        ):  # the other end has stayed: with half its gap the line falls beyond the target
            self.below /= 2
        elif side == self.side:
            self.above /= 2
        self.side = side
        self.strength = (self.low * self.above - self.high * self.below) / (self.above - self.below)

    def __str__(self) -> str:
        ends = [end for end in (self.low, self.high) if end in self.means]
        return " and ".join(f"{self.means[end]:.4g} at strength {end:.6g}" for end in ends)


def _check_measurable(images: Images) -> None:
    check_images(images)
    if not len(images):
        raise InputError("there are no images to calibrate on", "give at least one")
    black = images.detach().flatten(1).amax(1) == 0
    if bool(black.any()):
        raise InputError(
            f"image {int(black.nonzero()[0, 0])} is black: its L2-dissimilarity is infinite", "leave it out"
        )


def _whole_box(budget: Budget, images: Images) -> bool:
    """Whether the budget holds no image back any more: its radius is the diameter of the box at least."""
    diameter = budget.norms(torch.ones_like(images[:1].detach()))
    return bool((budget.radii(images.detach()) >= diameter).all())


def _joined(parts: list[AttackResult]) -> AttackResult:
    return AttackResult(
        torch.cat([part.images for part in parts]),
        torch.cat([part.success for part in parts]),
        torch.cat([part.queries for part in parts]),
        {name: torch.cat([part.stats[name] for part in parts]) for name in parts[0].stats},
    )
