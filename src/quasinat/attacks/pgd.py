"""Projected gradient descent (on the negative loss) with random starts."""

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks.ascent import Iterate, ascend, check_ascent, harder
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count
from quasinat.attacks.model_access import OnStep, attacking, part_of
from quasinat.attacks.result import AttackResult, judged


def pgd(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    steps: int = 40,
    restarts: int = 1,
    step_size: float | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """The basic iterative method from random points of the ball (Madry et al. 2018, sections 2.1 and 3.1).

    Each restart draws one perturbation, uniform in the unit ball, which all images share, each at its own radius. A
    start only has to lie off the clean image, not to differ between images; and this way an image's result depends
    neither on its batch nor on the device, and the first restarts do not change when more are added. Each image keeps
    the worst iterate of all restarts: an error before none, then the larger loss.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image; names the direction of a step too.
        steps: per restart.
        restarts: how many random starts.
        step_size: length of one step in the measure of the budget; by default 2.5 radii over `steps`.
        seed: of the random starts.
        on_step: called with the steps done and the steps in all, over all restarts.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` or `restarts` under 1, or a `step_size` that is not a positive number.
    """
    check_ascent(steps, step_size)
    check_count("restarts", restarts)
    generator = torch.Generator().manual_seed(seed)
    worst: Iterate | None = None
    with attacking(model, images, labels) as (clean, truth):
        for restart in range(restarts):
            noise = budget.unit_noise(clean.shape[1:], generator).to(clean)
            start = budget.project(clean, clean + noise * budget.reach(clean)[:, None, None, None])
            report = part_of(on_step, restart, restarts)
            climb = ascend(model, clean, truth, start, budget=budget, steps=steps, step_size=step_size, on_step=report)
            worst = harder(worst, climb)
        assert worst is not None  # restarts is at least 1
        return judged(model, worst.images, truth, queries=restarts * (2 * steps + 1))
