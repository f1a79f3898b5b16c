"""The projected ascent of Auto-PGD, whose steps halve where they no longer pay."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.ascent import Iterate
from quasinat.attacks.budget import Budget, Dissimilarity
from quasinat.attacks.goal import Goal
from quasinat.attacks.model_access import OnStep, logits_of, loss_and_gradient

FIRST_STEP = 2.0  # length of the first steps, in radii
NEW_SHARE = 0.75  # alpha: how much of a move is the new step; the rest repeats the last move
PAYING_SHARE = 0.75  # rho: how many of the steps since the last checkpoint have to raise the loss


def checkpoints(steps: int) -> list[int]:
    """After how many steps the step sizes are looked at: w_j = ceil(p_j steps), from w_0 = 0 on.

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06) (Croce & Hein 2020, section 3.2). In whole
    percents here: a rounding error would push the ceiling up.
    """
    percents = [0, 22]
    while (after := percents[-1] + max(percents[-1] - percents[-2] - 3, 6)) <= 100:
        percents.append(after)
    return sorted({-(-percent * steps // 100) for percent in percents})


def nothing_yet(images: Images, goal: Goal) -> Iterate:
    """What `ascend_by_itself` fills: the clean images, not looked at, at no cost."""
    losses = torch.full_like(images[:, 0, 0, 0], -torch.inf)
    reached, queries = torch.zeros_like(goal.labels, dtype=torch.bool), torch.zeros_like(goal.labels)
    return Iterate(images.clone(), losses, reached, queries)


def ascend_by_itself(
    model: nn.Module,
    images: Images,
    goal: Goal,
    start: Images,
    rows: Tensor,
    kept: Iterate,
    *,
    budget: Budget,
    steps: int,
    loss: str,
    until_success: bool,
    on_step: OnStep | None,
) -> None:
    """One run of Algorithm 1 (Croce & Hein 2020) for the images `rows`, from `start`.

    What is worse for the model than `kept`, the start included, is written there; `2 steps + 1` queries. With
    `until_success` an image that reaches the goal stays there and costs no more. Every step is reported, also when no
    image is left. Steps under `Dissimilarity` follow the gradient: the algorithm is stated for steepest steps.
    """
    if isinstance(budget, Dissimilarity):
        budget = replace(budget, step="gradient")
    looks = checkpoints(steps)
    here, state = start[rows], None
    for step in range(steps):
        if len(rows):
            aim = goal.of(rows)
            losses, hit, gradients = loss_and_gradient(model, here, aim, loss, rows)
            _note(kept, rows, here, losses, hit, queries=2)
            if state is None:
                state = _first(rows, images[rows], here, losses, gradients)
            else:
                state = _seen(state, here, losses, gradients)
            if until_success and bool(hit.any()):
                state = state.of(~hit)
                rows = state.rows
            if step in looks[1:]:
                state = _checked(state, step - looks[looks.index(step) - 1])
            here = _next(state, budget, NEW_SHARE if step else 1.0)
        if on_step is not None:
            on_step(step + 1, steps)
    if len(rows):
        aim = goal.of(rows)
        with torch.no_grad():
            logits = logits_of(model, here, aim, rows)
        _note(kept, rows, here, aim.loss(loss, logits), aim.reached(logits), queries=1)


def _note(kept: Iterate, rows: PerImageInt, here: Images, losses: PerImage, hit: PerImageBool, queries: int) -> None:
    """Keeps what is worse for the model: the goal reached before not, then the larger loss; ties keep the first."""
    best, reached = kept.losses[rows], kept.reached[rows]
    better = (hit & ~reached) | ((hit == reached) & (losses.to(best) > best))
    kept.images[rows[better]], kept.losses[rows[better]] = here[better], losses[better].to(best)
    kept.reached[rows] |= hit
    kept.queries[rows] += queries


@dataclass(frozen=True)
class _State:
    """Where the images are that still climb; each field has one entry for each of them.

    Attributes:
        rows: their numbers in the caller's batch.
        clean, before, here: the clean images, and the iterates x_(k-1) and x_(k).
        losses, gradients: f and its gradient at `here`.
        top, top_losses, top_gradients: x_max, f_max and the gradient there: the largest loss so far.
        strides: eta, the length of a step in radii.
        rises: how many steps since the last checkpoint raised the loss.
        mark: f_max at the last checkpoint.
        halved: whether that checkpoint halved the stride.
    """

    rows: PerImageInt
    clean: Images
    before: Images
    here: Images
    losses: PerImage
    gradients: Images
    top: Images
    top_losses: PerImage
    top_gradients: Images
    strides: PerImage
    rises: PerImageInt
    mark: PerImage
    halved: PerImageBool

    def of(self, chosen: PerImageBool) -> "_State":
        """Some of the images."""
        return _State(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def _first(rows: PerImageInt, clean: Images, here: Images, losses: PerImage, gradients: Images) -> _State:
    """The start is its own best point."""
    return _State(
        rows=rows,
        clean=clean,
        before=here,
        here=here,
        losses=losses,
        gradients=gradients,
        top=here,
        top_losses=losses,
        top_gradients=gradients,
        strides=torch.full_like(clean[:, 0, 0, 0], FIRST_STEP),
        rises=torch.zeros_like(rows),
        mark=losses,
        halved=torch.zeros_like(rows, dtype=torch.bool),
    )


def _next(state: _State, budget: Budget, share: float) -> Images:
    """z = P(x_k + eta d(grad f(x_k))), x_{k+1} = P(x_k + alpha (z - x_k) + (1 - alpha) (x_k - x_{k-1})).

    P is the budget's projection, d its direction at the length of the radius, alpha the share.
    """
    stride = budget.scaled(state.clean, budget.step_direction(state.gradients)) * state.strides[:, None, None, None]
    z = budget.project(state.clean, state.here + stride)
    if share == 1:
        return z
    move = share * (z - state.here) + (1 - share) * (state.here - state.before)
    return budget.project(state.clean, state.here + move)


def _seen(state: _State, here: Images, losses: PerImage, gradients: Images) -> _State:
    """One step on: x_max moves where the loss is larger than ever."""
    better = losses > state.top_losses
    swap = better[:, None, None, None]
    return replace(
        state,
        before=state.here,
        here=here,
        losses=losses,
        gradients=gradients,
        top=torch.where(swap, here, state.top),
        top_losses=torch.where(better, losses, state.top_losses),
        top_gradients=torch.where(swap, gradients, state.top_gradients),
        rises=state.rises + (losses > state.losses),
    )


def _checked(state: _State, length: int) -> _State:
    """A checkpoint, `length` steps after the last one: where condition 1 or 2 holds, eta halves and x_max is next.

    Condition 1: fewer than rho `length` steps raised the loss. Condition 2: the last checkpoint did not halve eta, and
    f_max is still what it was there.
    """
    halve = (state.rises < PAYING_SHARE * length) | (~state.halved & (state.top_losses == state.mark))
    back = halve[:, None, None, None]
    return replace(
        state,
        here=torch.where(back, state.top, state.here),
        losses=torch.where(halve, state.top_losses, state.losses),
        gradients=torch.where(back, state.top_gradients, state.gradients),
        strides=torch.where(halve, state.strides / 2, state.strides),
        rises=torch.zeros_like(state.rises),
        mark=state.top_losses,
        halved=halve,
    )
