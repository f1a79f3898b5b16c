"""The projected ascent that BIM and PGD share."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from quasinat.arrays import Images, Labels, PerImage, PerImageBool
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.model_access import OnStep, errs, logits_of, loss_and_gradient

STRIDE = 2.5  # by default the steps add up to this many radii (Madry et al. 2018, section 5)


@dataclass(frozen=True)
class Iterate:
    """A point of the ascent: the images, their loss, and whether the model errs on them."""

    images: Images
    losses: PerImage
    wrong: PerImageBool


def harder(first: Iterate | None, second: Iterate) -> Iterate:
    """The worse of two for the model, per image: an error beats none, then the larger loss; ties keep the first."""
    if first is None:
        return second
    swap = (second.wrong & ~first.wrong) | ((second.wrong == first.wrong) & (second.losses > first.losses))
    return Iterate(
        torch.where(swap[:, None, None, None], second.images, first.images),
        torch.where(swap, second.losses, first.losses),
        first.wrong | second.wrong,
    )


def check_ascent(steps: int, step_size: float | None) -> None:
    """Refuses numbers that make no ascent, with a UsageError."""
    check_count("steps", steps)
    if step_size is not None:
        check_number("step_size", step_size)


def ascend(
    model: nn.Module,
    images: Images,
    labels: Labels,
    start: Images,
    *,
    budget: Budget,
    steps: int,
    step_size: float | None,
    on_step: OnStep | None,
) -> Iterate:
    """Climbs the cross-entropy from `start`, staying in the ball around `images` and in the box.

    x_{n+1} = P(x_n + a d(grad_x J(x_n, y))), d the budget's direction, P its projection (Kurakin et al. 2017, section
    2.2; Madry et al. 2018, section 2.1). Returns the worst of the iterates after the start.
    Costs `2 steps + 1` queries.
    """
    stride, fraction = (budget, STRIDE / steps) if step_size is None else (budget.resized(step_size), 1.0)
    current, worst = start, None
    for step in range(steps):
        losses, wrong, gradient = loss_and_gradient(model, current, labels)
        if step > 0:
            worst = harder(worst, Iterate(current, losses, wrong))
        ascent = stride.scaled(images, budget.step_direction(gradient), fraction)
        current = budget.project(images, current + ascent)
        if on_step is not None:
            on_step(step + 1, steps)
    with torch.no_grad():
        logits = logits_of(model, current, labels)
    last = Iterate(current, F.cross_entropy(logits, labels, reduction="none"), errs(logits, labels))
    return harder(worst, last)
