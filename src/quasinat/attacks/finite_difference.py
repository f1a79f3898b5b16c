"""Ascent on gradients estimated by finite differences, a few coordinates at a time."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from quasinat.arrays import Images, Labels, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.goal import Goal, check_loss
from quasinat.attacks.model_access import OnStep, attacking
from quasinat.attacks.result import AttackResult, judged
from quasinat.attacks.scores import better, scores, scores_of_candidates

FIRST_DECAY, SECOND_DECAY, ADAM_EPSILON = 0.9, 0.999, 1e-8  # of the source's Algorithm 2, the usual ones of Adam

Coordinates = Int64[Tensor, "coordinates"]
Quotients = Float[Tensor, "batch coordinates"]


def finite_difference(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    targets: Labels | None = None,
    steps: int = 200,
    coordinates: int = 128,
    probe: float = 1e-4,
    learning_rate: float = 0.01,
    loss: str = "margin",
    seed: int = 0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """Adam on symmetric difference quotients of random coordinates (ZOO; Chen et al. 2017, section 3).

    No gradient is asked for. Each step draws some coordinates, estimates the slope of the loss along each (Eq. 6),
    moves them by Adam with moments and a step count for each coordinate (Algorithm 2), and projects into the budget.
    Two differences from the source: it minimises ||d||^2 + c f like Carlini and Wagner, here the budget is a hard ball,
    which makes the attack comparable with the others; and its hierarchy of image sizes and importance sampling are left
    out. Its f is minus the margin. An image stops at its first success, and one that is wrong already stays as it is;
    one that never succeeds is returned at its best iterate, without success.

    Adam moves all coordinates about equally far, whatever their slopes. In an L2 ball that is about 4/5 as effective
    as the gradient on a flat model; in an Linf ball nothing is lost.

    The coordinates are drawn on the CPU and shared by all images, so that an image's result depends neither on its
    batch nor on the device.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image.
        targets: the classes wanted, if the attack is to be targeted.
        steps: at most; an image costs `2 coordinates + 1` queries in each.
        coordinates: per step, at most all `C H W` of them.
        probe: the distance h of the quotient, in [0, 1]; with half precision at least the spacing of the numbers.
        learning_rate: of Adam, in [0, 1].
        loss: of `LOSSES`.
        seed: of the coordinates.
        on_step: called with the steps done and the steps in all.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` or `coordinates` under 1, a `probe` or `learning_rate` that is not a positive number, or an
            unknown loss.
    """
    check_count("steps", steps)
    check_count("coordinates", coordinates)
    check_number("probe", probe)
    check_number("learning_rate", learning_rate)
    check_loss(loss)
    generator = torch.Generator().manual_seed(seed)
    with attacking(model, images, labels, targets) as (clean, goal), torch.no_grad():
        losses, reached = scores(model, clean, goal, loss)
        current, best, queries = clean.clone(), clean.clone(), torch.ones_like(goal.labels)
        size = clean.shape[1:].numel()
        first = torch.zeros_like(clean.flatten(1), dtype=torch.promote_types(clean.dtype, torch.float32))
        second = torch.zeros_like(first)
        visits = torch.zeros(size, dtype=first.dtype, device=clean.device)
        rows = (~reached).nonzero()[:, 0]
        for step in range(steps):
            if not len(rows):
                break
            chosen = torch.randperm(size, generator=generator)[:coordinates].to(clean.device)
            slopes = difference_quotients(model, current[rows], goal.of(rows), chosen, probe, loss, rows)
            visits[chosen] += 1
            at = (rows[:, None], chosen)
            first[at] = FIRST_DECAY * first[at] + (1 - FIRST_DECAY) * slopes
            second[at] = SECOND_DECAY * second[at] + (1 - SECOND_DECAY) * slopes.square()
            mean = first[at] / (1 - FIRST_DECAY ** visits[chosen])
            scale = (second[at] / (1 - SECOND_DECAY ** visits[chosen])).sqrt() + ADAM_EPSILON
            moved = current[rows].flatten(1)
            moved[:, chosen] += (learning_rate * mean / scale).to(moved.dtype)
            moved = budget.project(clean[rows], moved.view(-1, *clean.shape[1:]))
            new, hit = scores(model, moved, goal.of(rows), loss, rows)
            queries[rows] += 2 * len(chosen) + 1
            current[rows] = moved
            kept = hit | better(new, losses[rows]) if step > 0 else torch.ones_like(hit)  # the clean one is no iterate
            best[rows[kept]], losses[rows[kept]] = moved[kept], new[kept]
            rows = rows[~hit]
            if on_step is not None:
                on_step(step + 1, steps)
        return judged(model, best, goal, queries)


def difference_quotients(
    model: nn.Module,
    images: Images,
    goal: Goal,
    coordinates: Coordinates,
    probe: float,
    loss: str,
    rows: PerImageInt,
) -> Quotients:
    """(J(x + h e_i) - J(x - h e_i)) / 2h along each coordinate i of the flattened images (Chen et al. 2017, Eq. 6).

    Both points are clipped to [0, 1] and the quotient is that of the distance really gone, so that the model never
    sees a value that is no image; at the edge of the box it is one-sided.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        goal: of these images.
        coordinates: numbers from 0 to `C H W - 1`.
        probe: h.
        loss: J, of `LOSSES`.
        rows: the numbers of these images in the caller's batch, for error messages; at least one.
    """
    flat = images.flatten(1)
    h = max(probe, torch.finfo(images.dtype).eps)  # a smaller step would round to none
    ends = torch.stack([(flat[:, coordinates] + h).clamp(max=1), (flat[:, coordinates] - h).clamp(min=0)], 2)

    def probed(owner: PerImageInt, number: PerImageInt) -> Images:
        points, every = flat[owner], torch.arange(len(owner), device=owner.device)
        points[every, coordinates[number // 2]] = ends[owner, number // 2, number % 2]
        return points.view(-1, *images.shape[1:])

    losses, _ = scores_of_candidates(model, probed, 2 * len(coordinates), goal, loss, rows)
    precise = torch.promote_types(images.dtype, torch.float32)
    ahead, behind = losses.to(precise).view(len(rows), len(coordinates), 2).unbind(2)
    return (ahead - behind) / (ends[:, :, 0].to(precise) - ends[:, :, 1].to(precise))
