"""The projected ascent that BIM and PGD share."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.goal import Goal, check_loss
from quasinat.attacks.model_access import OnStep, logits_of, loss_and_gradient

STRIDE = 2.5  # by default the steps add up to this many radii (Madry et al. 2018, section 5)


@dataclass(frozen=True)
class Iterate:
    """A point of the ascent: the images, their loss, whether the goal is reached, and the queries so far."""

    images: Images
    losses: PerImage
    reached: PerImageBool
    queries: PerImageInt


def harder(first: Iterate | None, second: Iterate) -> Iterate:
    """The worse of two for the model, per image: the goal reached beats not, then the larger loss; ties keep the first.

    The queries add up.
    """
    if first is None:
        return second
    swap = _worse(first.losses, first.reached, second.losses, second.reached)
    return Iterate(
        torch.where(swap[:, None, None, None], second.images, first.images),
        torch.where(swap, second.losses, first.losses),
        first.reached | second.reached,
        first.queries + second.queries,
    )


def _worse(losses: PerImage, reached: PerImageBool, new: PerImage, hit: PerImageBool) -> PerImageBool:
    return (hit & ~reached) | ((hit == reached) & (new > losses))


def merged(whole: Iterate, rows: PerImageInt, part: Iterate) -> Iterate:
    """`whole`, made `harder` by a later climb of some of its images."""
    names = [field.name for field in fields(Iterate)]
    worse = harder(Iterate(*(getattr(whole, name)[rows] for name in names)), part)
    return Iterate(*(getattr(whole, name).index_copy(0, rows, getattr(worse, name)) for name in names))


def check_ascent(steps: int, step_size: float | None, loss: str) -> None:
    """Refuses options that make no ascent, with a UsageError."""
    check_count("steps", steps)
    check_loss(loss)
    if step_size is not None:
        check_number("step_size", step_size)


def ascend(
    model: nn.Module,
    images: Images,
    goal: Goal,
    start: Images,
    *,
    budget: Budget,
    steps: int,
    step_size: float | None,
    loss: str,
    until_success: bool,
    on_step: OnStep | None,
    numbers: PerImageInt | None = None,
) -> Iterate:
    """Climbs the loss from `start`, staying in the ball around `images` and in the box.

    x_{n+1} = P(x_n + a d(grad_x J(x_n, y))), d the budget's direction, P its projection (Kurakin et al. 2017, section
    2.2; Madry et al. 2018, section 2.1). Returns the worst of the iterates after the start, at `2 steps + 1` queries.
    With `until_success` an image that reaches the goal, at the start or later, stays there and costs no more. `numbers`
    are the places of these images in the caller's batch, for error messages.
    """
    stride, fraction = (budget, STRIDE / steps) if step_size is None else (budget.resized(step_size), 1.0)
    current, worst = start, start
    losses = torch.full_like(images.flatten(1).sum(1), -torch.inf)
    reached, queries = torch.zeros_like(goal.labels, dtype=torch.bool), torch.zeros_like(goal.labels)
    rows = torch.arange(len(images), device=images.device)
    names = rows if numbers is None else numbers
    for step in range(steps + 1):
        whole = len(rows) == len(images)  # nothing need be picked out then
        here, aim = (current, goal) if whole else (current[rows], goal.of(rows))
        new, hit, gradient = look(model, here, aim, loss, names[rows], gradient=step < steps)
        queries[rows] += 2 if step < steps else 1
        if step > 0 or until_success:
            better = hit if step == 0 else _worse(losses[rows], reached[rows], new.to(losses), hit)
            worst = (
                torch.where(_spread(better), here, worst) if whole else worst.index_copy(0, rows[better], here[better])
            )
            losses[rows[better]] = new[better].to(losses)
            reached[rows] |= hit
        if step == steps:
            break
        if until_success and bool(hit.any()):
            rows, here, gradient = rows[~hit], here[~hit], gradient[~hit]
            whole = False
        if len(rows):
            clean = images if whole else images[rows]
            ahead = budget.project(clean, here + stride.stretched(clean, budget.step_direction(gradient), fraction))
            current = ahead if whole else current.index_copy(0, rows, ahead)
        if on_step is not None:
            on_step(step + 1, steps)
        if until_success and not len(rows):
            break
    return Iterate(worst, losses, reached, queries)


def _spread(flags: PerImageBool) -> Tensor:
    return flags[:, None, None, None]


def look(
    model: nn.Module, images: Images, goal: Goal, loss: str, rows: PerImageInt, *, gradient: bool
) -> tuple[PerImage, PerImageBool, Images]:
    """As `loss_and_gradient`; a last look takes no gradient, and gives zeros for it."""
    if gradient:
        return loss_and_gradient(model, images, goal, loss, rows)
    with torch.no_grad():
        logits = logits_of(model, images, goal, rows)
    return goal.loss(loss, logits), goal.reached(logits), torch.zeros_like(images)
