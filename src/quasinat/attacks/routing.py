"""An attack on the choice of the stratum together with the classification."""

import torch
from torch import Tensor

from quasinat.arrays import Images, Labels, PerImage, PerImageInt
from quasinat.attacks.ascent import STRIDE, Iterate, look, merged
from quasinat.attacks.budget import L2, Budget
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.goal import Goal, check_loss
from quasinat.attacks.model_access import OnStep, attacking, input_gradient, watched
from quasinat.attacks.result import AttackResult, judged
from quasinat.attacks.subspace import layer_of
from quasinat.defended import Defended, EightBit
from quasinat.errors import UsageError
from quasinat.strata import Strata

SAFE = 0.02  # relative distance by which the wanted stratum's neighbours must be nearer before the vote is left alone


def routing(
    model: Defended,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    steps: int = 20,
    loss: str = "cross-entropy",
    pull: float = 1.0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """BIM inside every stratum, without and with a pull on the vote; the worst case of all of them.

    For each stratum m the loss of classifier(T_m(x)) is climbed, T_m the layer with m's dictionary for every image: the
    vote, which has no derivative, is out of the way. An iterate counts where the vote does choose m, since there
    T_m(x) = T(x). Then again with the direction grad J / |grad J| + `pull` grad V / |grad V| until V is safely
    positive, V = (d_other - d_m) / (d_other + d_m): of the k nearest training latents a majority is of m exactly if
    the (k + 1) / 2-th nearest of m, at distance d_m, is nearer than that of all others, at distance d_other.

    An image stops at its first success. A failed one returns its iterate of the largest loss among those that count, or
    where none does the last one of the first climb.

    Args:
        model: a `Defended` whose layer has strata, with a named adjoint.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image; names the direction of a step too.
        steps: of each of the 2 M climbs.
        loss: of `LOSSES`.
        pull: the weight of the vote; above 0.
        on_step: called with the climbs done and the climbs in all.

    Returns:
        With the stats `stratum`, of the image as returned, and `moved`, 1 where that is not the clean image's.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: no such layer, or an option out of range.
    """
    layer = layer_of(model, "routing")
    if layer.strata is None:
        raise UsageError("a layer without strata has no vote to attack", "use pgd")
    check_count("steps", steps)
    check_number("pull", pull)
    check_loss(loss)
    strata, climbs = layer.strata, 2 * layer.strata.count
    with attacking(model, images, labels) as (clean, goal):
        worst = Iterate(
            clean,
            torch.full_like(clean.flatten(1).sum(1), -torch.inf),
            torch.zeros_like(goal.labels, dtype=torch.bool),
            torch.zeros_like(goal.labels),
        )
        for climb in range(climbs):
            weight, stratum = (pull if climb >= strata.count else 0.0), climb % strata.count
            rows = (~worst.reached).nonzero()[:, 0]
            if len(rows):
                inside = Defended(layer.within(stratum), model.classifier, eight_bit=model.eight_bit).eval()
                part = _climb(inside, strata, stratum, clean[rows], goal.of(rows), rows, budget, steps, loss, weight)
                worst = part if climb == 0 else merged(worst, rows, part)
            if on_step is not None:
                on_step(climb + 1, climbs)
        chosen = _vote(model, strata, worst.images) if len(clean) else goal.labels
        moved = chosen != (_vote(model, strata, clean) if len(clean) else goal.labels)
        return judged(model, worst.images, goal, worst.queries, {"stratum": chosen, "moved": moved.long()})


def _climb(
    model: Defended,
    strata: Strata,
    stratum: int,
    images: Images,
    goal: Goal,
    numbers: PerImageInt,
    budget: Budget,
    steps: int,
    loss: str,
    pull: float,
) -> Iterate:
    """One ascent inside a stratum; `losses` is -infinity for an image whose vote never chose it.

    `numbers` are the places of these images in the caller's batch, for error messages.
    """
    current, worst = images.clone(), images.clone()
    losses = torch.full_like(images.flatten(1).sum(1), -torch.inf)
    reached, queries = torch.zeros_like(goal.labels, dtype=torch.bool), torch.zeros_like(goal.labels)
    rows = torch.arange(len(images), device=images.device)
    for step in range(steps + 1):
        here = current[rows]
        new, hit, gradient = look(model, here, goal.of(rows), loss, numbers[rows], gradient=step < steps)
        queries[rows] += 2 if step < steps else 1
        chosen = _vote(model, strata, here) == stratum
        hit = hit & chosen
        better = hit | (chosen & (new.to(losses) > losses[rows])) if step > 0 else hit
        worst[rows[better]], losses[rows[better]] = here[better], new[better].to(losses)
        reached[rows[hit]] = True
        rows, here, gradient = rows[~hit], here[~hit], gradient[~hit]
        if step == steps or not len(rows):
            break
        if pull:
            gradient = _steered(gradient, strata, here, stratum, pull)
        ascent = budget.scaled(images[rows], budget.step_direction(gradient), STRIDE / steps)
        current[rows] = budget.project(images[rows], here + ascent)
    never = losses == -torch.inf
    return Iterate(torch.where(never[:, None, None, None], current, worst), losses, reached, queries)


def _vote(model: Defended, strata: Strata, images: Images) -> PerImageInt:
    """The stratum of each image as the deployed model sees it."""
    members: PerImageInt = strata(EightBit()(images) if model.eight_bit else images)
    return members


def _steered(gradient: Images, strata: Strata, images: Images, stratum: int, pull: float) -> Images:
    """The loss's direction, with the vote's added where the vote is not safely for the stratum."""
    leaf, unit = watched(images), L2(1.0).step_direction
    values = vote_margin(strata, leaf, stratum)
    towards = input_gradient(values, leaf)
    unsafe = (values.detach() < SAFE).to(gradient.dtype)
    return unit(gradient) + pull * unsafe[:, None, None, None] * unit(towards.to(gradient.dtype))


def vote_margin(strata: Strata, images: Images, stratum: int) -> PerImage:
    """V above, differentiable in the images: positive exactly where a majority of the neighbours is of the stratum."""
    latents = strata.autoencoder.encode(images)
    latents = strata.pca.project(latents) if strata.pca else latents
    majority = strata.neighbours // 2 + 1
    with torch.no_grad():
        distances = torch.cdist(latents, strata.latents)
        own = strata.labels == stratum
        inside, outside = (_rank(distances, members, majority) for members in (own, ~own))
    to_own = (latents - strata.latents[inside]).norm(dim=1)
    to_other = (latents - strata.latents[outside]).norm(dim=1)
    return (to_other - to_own) / (to_other + to_own).clamp_min(torch.finfo(latents.dtype).tiny)


def _rank(distances: Tensor, members: Tensor, rank: int) -> Tensor:
    """Of each row, the place of the `rank`-th nearest among the members (or of the farthest, if there are fewer)."""
    count = max(1, min(rank, int(members.sum())))
    return distances.masked_fill(~members, torch.inf).topk(count, dim=1, largest=False).indices[:, -1]
