"""The basic iterative method."""

from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks.ascent import ascend, check_ascent
from quasinat.attacks.budget import Budget
from quasinat.attacks.model_access import OnStep, attacking
from quasinat.attacks.result import AttackResult, judged


def bim(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    steps: int = 20,
    step_size: float | None = None,
    on_step: OnStep | None = None,
) -> AttackResult:
    """FGSM in small steps, each followed by a projection on the ball and the box (Kurakin et al. 2017, section 2.2).

    Of the iterates after the clean image, each image keeps the one that is worst for the model: an error before none,
    then the larger loss.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image; names the direction of a step too.
        steps: the paper uses 10 to 100.
        step_size: length of one step in the measure of the budget. The default, 2.5 radii over `steps`, lets the
            ascent reach the boundary and turn there; Kurakin et al. use 1/255 under `Linf`, others the radius over
            `steps`, which is weaker.
        on_step: called with the steps done and the steps in all.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` under 1, or a `step_size` that is not a positive number.
    """
    check_ascent(steps, step_size)
    with attacking(model, images, labels) as (clean, truth):
        worst = ascend(model, clean, truth, clean, budget=budget, steps=steps, step_size=step_size, on_step=on_step)
        return judged(model, worst.images, truth, queries=2 * steps + 1)
