"""Projected gradient descent (on the negative loss) with random starts."""

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks.ascent import Iterate, ascend, check_ascent, harder, merged
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
    targets: Labels | None = None,
    steps: int = 40,
    restarts: int = 1,
    step_size: float | None = None,
    loss: str = "cross-entropy",
    until_success: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """The basic iterative method from random points of the ball (Madry et al. 2018, sections 2.1 and 3.1).

    Each restart draws one perturbation, uniform in the unit ball, which all images share, each at its own radius. A
    start only has to lie off the clean image, not to differ between images; and this way an image's result depends
    neither on its batch nor on the device, and the first restarts do not change when more are added. Each image keeps
    the worst iterate of all restarts: the goal reached before not, then the larger loss.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image; names the direction of a step too.
        targets: the classes wanted, if the attack is to be targeted.
        steps: per restart.
        restarts: how many random starts.
        step_size: length of one step in the measure of the budget; by default 2.5 radii over `steps`.
        loss: of `LOSSES`.
        until_success: an image stops at its first success, and is left out of later restarts.
        seed: of the random starts.
        on_step: called with the steps done and the steps in all, over all restarts.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` or `restarts` under 1, an unknown loss, or a `step_size` that is not a positive number.
    """
    check_ascent(steps, step_size, loss)
    check_count("restarts", restarts)
    generator = torch.Generator().manual_seed(seed)
    worst: Iterate | None = None
    with attacking(model, images, labels, targets) as (clean, goal):
        for restart in range(restarts):
            noise = budget.unit_noise(clean.shape[1:], generator).to(clean)
            start = budget.project(clean, clean + noise * budget.reach(clean)[:, None, None, None])
            left = torch.arange(len(clean), device=clean.device)
            if until_success and worst is not None:
                left = left[~worst.reached]
                if not len(left):
                    break
            climb = ascend(
                model,
                clean[left],
                goal.of(left),
                start[left],
                budget=budget,
                steps=steps,
                step_size=step_size,
                loss=loss,
                until_success=until_success,
                on_step=part_of(on_step, restart, restarts),
                numbers=left,
            )
            worst = harder(worst, climb) if worst is None or len(left) == len(clean) else merged(worst, left, climb)
        assert worst is not None  # restarts is at least 1
        return judged(model, worst.images, goal, worst.queries)
