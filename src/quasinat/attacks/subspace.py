"""The projected ascent within a linear subspace: what the low-pass and the active-span attack share."""

from collections.abc import Callable

import torch
from torch import nn

from quasinat.arrays import Images, PerImage, PerImageInt
from quasinat.attacks.ascent import STRIDE, look
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count
from quasinat.attacks.goal import check_loss
from quasinat.attacks.model_access import OnStep, attacking
from quasinat.attacks.result import AttackResult, judged
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer

Projector = Callable[[Images, PerImageInt], Images]
"""Directions and the numbers of their images to the orthogonal projections on each image's subspace."""


def within_subspace(
    model: nn.Module,
    images: Images,
    labels: torch.Tensor,
    projector: Callable[[Images], Projector],
    *,
    budget: Budget,
    steps: int,
    loss: str,
    on_step: OnStep | None,
) -> AttackResult:
    """BIM whose perturbation d stays in each image's subspace: d <- S(d + a P dir(P grad J)), x_adv = clip(x + d).

    P is the projection, S the radial shrinking into the ball, which leaves no subspace. The clip to the box may: the
    share of the squared length that it puts outside is in the stats as `outside`. An image stops at its first success.
    """
    check_count("steps", steps)
    check_loss(loss)
    with attacking(model, images, labels) as (clean, goal):
        project = projector(clean)
        perturbed, losses = clean.clone(), torch.full_like(clean.flatten(1).sum(1), -torch.inf)
        moved, queries = torch.zeros_like(clean), torch.zeros_like(goal.labels)
        current, rows = clean.clone(), torch.arange(len(clean), device=clean.device)
        for step in range(steps + 1):
            values, hit, gradient = look(model, current[rows], goal.of(rows), loss, rows, gradient=step < steps)
            queries[rows] += 2 if step < steps else 1
            better = hit | ((values.to(losses) > losses[rows]) & (step > 0))  # a failed image is not the clean one
            improved = rows[better]
            perturbed[improved], losses[improved] = current[improved], values[better].to(losses)
            rows, gradient = rows[~hit], gradient[~hit]
            if step == steps or not len(rows):
                break
            direction = project(budget.step_direction(project(gradient, rows)), rows)
            ahead = moved[rows] + budget.scaled(clean[rows], direction, STRIDE / steps)
            moved[rows] = _shrunk(ahead, budget, clean[rows])
            current[rows] = (clean[rows] + moved[rows]).clamp(0, 1)
            if on_step is not None:
                on_step(step + 1, steps)
        difference = perturbed - clean
        everyone = torch.arange(len(clean), device=clean.device)
        outside = _energy(difference - project(difference, everyone)) / _energy(difference).clamp_min(1e-30)
        return judged(model, perturbed, goal, queries, {"outside": outside})


def _shrunk(perturbation: Images, budget: Budget, images: Images) -> Images:
    lengths = budget.norms(perturbation)
    ratio = budget.radii(images) / torch.where(lengths > 0, lengths, 1)
    return perturbation * ratio.clamp(max=1).view(-1, 1, 1, 1)


def _energy(images: Images) -> PerImage:
    return images.flatten(1).square().sum(1)


def layer_of(model: nn.Module, attack: str) -> SparseTransformationLayer:
    """The Sparse Transformation Layer in front of the model.

    Raises:
        UsageError: there is none, and this attack is aimed at it.
    """
    if isinstance(model, Defended) and isinstance(model.transform, SparseTransformationLayer):
        return model.transform
    raise UsageError(f"the {attack} attack is aimed at a Sparse Transformation Layer", "pass a Defended with one")
