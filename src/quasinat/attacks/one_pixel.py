"""The one-pixel attack: differential evolution over a few pixels' places and colours."""

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from quasinat.arrays import Images, Labels, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count
from quasinat.attacks.goal import check_loss
from quasinat.attacks.model_access import OnStep, attacking
from quasinat.attacks.result import AttackResult, judged
from quasinat.attacks.scores import better, scores, scores_of_candidates

WEIGHT = 0.5  # F of differential evolution
COLOUR_MEAN, COLOUR_DEVIATION = 128 / 255, 127 / 255  # of the first generation

# A member is, for each pixel, its row, its column and its colours, in pixels and in [0, 1].
Member = Float[Tensor, "population pixels genes"]
Members = Float[Tensor, "batch population pixels genes"]
Chosen = Float[Tensor, "batch pixels genes"]


def one_pixel(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    pixels: int = 1,
    budget: Budget | None = None,
    targets: Labels | None = None,
    population: int = 400,
    generations: int = 100,
    loss: str = "margin",
    seed: int = 0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """Changes a few pixels, found by differential evolution (Su, Vargas & Sakurai 2019, section III).

    No gradient is asked for. Each generation, every member has a child x_1 + F (x_2 - x_3) of three others, F = 0.5 and
    no crossover, which takes its place if its loss is higher. The first generation has uniform places and colours of
    N(128, 127) / 255; places and colours are clipped to the image and to [0, 1]. An image stops at its first success,
    and one that is wrong already stays as it is; one that never succeeds is returned with its best member, without
    success. The source's fitness is the probability of the label, or of the target. The cross-entropy orders the
    candidates as it does, but is flat to rounding where the model is sure of itself; so the margin is the default.

    The random numbers are drawn on the CPU and shared by all images, each with its own population, so that an image's
    result depends neither on its batch nor on the device.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        pixels: how many may change; two may fall on one place, where the later one counts.
        budget: if given, each candidate is projected into it before the model sees it. The attack's own measure is the
            number of pixels.
        targets: the classes wanted, if the attack is to be targeted.
        population: members, at least 4.
        generations: after the first one, at most.
        loss: of `LOSSES`.
        seed: of the evolution.
        on_step: called with the generations done, the first one included, and those in all.

    Returns:
        The result, with the number of pixels that differ from the clean image as its stat `pixels`. An image costs
        `population` queries per generation, and two more for the look at the clean image and the re-check.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `pixels` or `generations` under 1, `population` under 4, or an unknown loss.
    """
    check_count("pixels", pixels)
    check_count("population", population, least=4)
    check_count("generations", generations)
    check_loss(loss)
    generator = torch.Generator().manual_seed(seed)
    with attacking(model, images, labels, targets) as (clean, goal), torch.no_grad():
        _, reached = scores(model, clean, goal, loss)
        perturbed, queries = clean.clone(), torch.ones_like(goal.labels)
        rows = (~reached).nonzero()[:, 0]
        channels, height, width = clean.shape[1:]
        limits = torch.tensor([height, width] + [1] * channels, device=clean.device, dtype=torch.float32)
        first = _first_generation(population, pixels, limits, generator)
        members = first.expand(len(rows), *first.shape)

        def changed(owner: PerImageInt, chosen: Chosen) -> Images:
            """The images of these rows with these pixels in them."""
            here = clean[rows[owner]]
            candidates = _with_pixels(here, chosen)
            return candidates if budget is None else budget.project(here, candidates)

        for generation in range(generations + 1):
            if not len(rows):
                break
            children = members if generation == 0 else _children(members, limits, generator)

            def candidates(owner: PerImageInt, number: PerImageInt, children: Members = children) -> Images:
                return changed(owner, children[owner, number])

            losses, hits = scores_of_candidates(model, candidates, population, goal.of(rows), loss, rows)
            queries[rows] += population
            if generation == 0:
                fitness = losses
            else:
                fitter = better(losses, fitness)
                members = torch.where(fitter[:, :, None, None], children, members)
                fitness = torch.where(fitter, losses, fitness)
            done = hits.any(1)
            found = done.nonzero()[:, 0]
            winners = losses[found].masked_fill(~hits[found], -torch.inf).argmax(1)
            perturbed[rows[found]] = changed(found, children[found, winners])
            rows, members, fitness = rows[~done], members[~done], fitness[~done]
            if on_step is not None:
                on_step(generation + 1, generations + 1)
        if len(rows):
            left = torch.arange(len(rows), device=rows.device)
            perturbed[rows] = changed(left, members[left, fitness.argmax(1)])
        differing = (perturbed != clean).any(1).sum((1, 2))
        return judged(model, perturbed, goal, queries, {"pixels": differing})


def _first_generation(population: int, pixels: int, limits: Tensor, generator: Generator) -> Member:
    """Uniform places, normal colours."""
    places = torch.rand(population, pixels, 2, generator=generator) * limits[:2].cpu()
    normal = torch.randn(population, pixels, len(limits) - 2, generator=generator)
    colours = (COLOUR_MEAN + COLOUR_DEVIATION * normal).clamp(0, 1)
    return torch.cat([places, colours], 2).to(limits)


def _children(members: Members, limits: Tensor, generator: Generator) -> Members:
    """x_1 + F (x_2 - x_3) for each member, of three different others, clipped to the image and to [0, 1]."""
    one, two, three = _three_others(members.shape[1], generator).to(members.device).unbind(1)
    return (members[:, one] + WEIGHT * (members[:, two] - members[:, three])).clamp(min=0).minimum(limits)


def _three_others(population: int, generator: Generator) -> Int64[Tensor, "population 3"]:
    """For each member the numbers of three others, all different, uniformly: a draw steps over those that are taken."""
    taken = torch.arange(population)[:, None]
    for _ in range(3):
        draw = torch.randint(population - taken.shape[1], (population,), generator=generator)
        for earlier in taken.sort(1).values.unbind(1):
            draw = draw + (draw >= earlier)
        taken = torch.cat([taken, draw[:, None]], 1)
    return taken[:, 1:]


def _with_pixels(images: Images, chosen: Chosen) -> Images:
    """Each image with its pixels set, one after the other, so that the later one counts on every device."""
    changed, every = images.clone(), torch.arange(len(images), device=images.device)
    for pixel in chosen.unbind(1):
        row = pixel[:, 0].long().clamp(max=images.shape[2] - 1)
        column = pixel[:, 1].long().clamp(max=images.shape[3] - 1)
        changed[every, :, row, column] = pixel[:, 2:].to(images.dtype)
    return changed
