"""DeepFool: the nearest decision boundary, linearised again and again."""

import torch
from torch import nn

from quasinat.arrays import Images, Labels, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.goal import Goal
from quasinat.attacks.held_to import held_to
from quasinat.attacks.model_access import OnStep, attacking, input_gradient, logits_of, watched
from quasinat.attacks.result import AttackResult, judged

NUDGE = 1e-4  # L2 length added to each step, as in the authors' code: a point on the boundary itself moves on


def deepfool(
    model: nn.Module,
    images: Images,
    labels: Labels | None = None,
    *,
    budget: Budget | None = None,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    on_step: OnStep | None = None,
) -> AttackResult:
    """A small L2 perturbation that changes the class (Moosavi-Dezfooli et al. 2016, Algorithm 2), clipped to [0, 1].

    Only the images that still keep their class are worked on; an image that the model gets wrong at the start is
    returned as it is. An image that never changes class is returned at its last iterate, without success.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the classes to leave; by default the model's own decisions, as in the publication.
        budget: if given, each perturbation is rescaled to it along its direction and clipped (see `held_to`), and
            success is judged there.
        steps: at most.
        overshoot: the boundary is passed by this share of the perturbation.
        candidates: how many of the highest classes of the clean image count, its own included.
        on_step: called with the steps done and the steps in all.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` under 1, `candidates` under 2, or a negative `overshoot`.
    """
    check_count("steps", steps)
    check_count("candidates", candidates, least=2)
    check_number("overshoot", overshoot, zero=True)
    given = torch.zeros(len(images), dtype=torch.int64, device=images.device) if labels is None else labels
    with attacking(model, images, given) as (clean, goal):
        with torch.no_grad():
            logits = logits_of(model, clean, goal)
        goal = Goal(logits.argmax(1)) if labels is None else goal
        rivals = _rivals(logits, goal.labels, candidates)
        rows = (~goal.reached(logits)).nonzero()[:, 0]
        perturbed, total, queries = clean.clone(), torch.zeros_like(clean), torch.ones_like(goal.labels)
        for step in range(steps):
            if not len(rows):
                break
            total[rows] += _to_nearest_boundary(model, perturbed[rows], goal.of(rows), rivals[rows], rows)
            perturbed[rows] = (clean[rows] + (1 + overshoot) * total[rows]).clamp(0, 1)
            queries[rows] += 2 + rivals.shape[1]
            with torch.no_grad():  # a forward pass apart: cheaper than gradients of the images that are done
                logits = logits_of(model, perturbed[rows], goal.of(rows), rows)
            rows = rows[~goal.of(rows).reached(logits)]
            if on_step is not None:
                on_step(step + 1, steps)
        if budget is not None:
            perturbed = held_to(clean, perturbed, budget)
        return judged(model, perturbed, goal, queries)


def _rivals(logits: torch.Tensor, labels: torch.Tensor, candidates: int) -> torch.Tensor:
    """The highest classes of each image without its own, `B R`."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(candidates, logits.shape[1]) - 1, dim=1).indices


def _to_nearest_boundary(
    model: nn.Module, images: Images, goal: Goal, rivals: torch.Tensor, rows: PerImageInt
) -> Images:
    """The step to the nearest linearised boundary: r = |f_l| / ||w_l||^2 w_l, l = argmin_k |f_k| / ||w_k||.

    f_k is the logit of class k less that of the label, w_k its gradient, one backward pass for each rival k. Where
    every w_k vanishes there is no step.
    """
    leaf = watched(images)
    logits = logits_of(model, leaf, goal, rows)
    own = logits.gather(1, goal.labels[:, None])[:, 0]
    nearest = torch.full_like(own, torch.inf).detach()
    directions = torch.zeros_like(images)
    for k in range(rivals.shape[1]):
        f = logits.gather(1, rivals[:, k : k + 1])[:, 0] - own
        w = input_gradient(f, leaf, rows, keep_graph=k + 1 < rivals.shape[1])
        norms = torch.linalg.vector_norm(w.flatten(1), dim=1)
        distances = torch.where(norms > 0, f.detach().abs() / norms, torch.inf)
        closer = distances < nearest
        nearest = torch.where(closer, distances, nearest)
        directions = torch.where(closer[:, None, None, None], w / norms[:, None, None, None], directions)
    lengths = torch.where(nearest.isfinite(), nearest + NUDGE, 0)
    return directions * lengths[:, None, None, None].to(images.dtype)
