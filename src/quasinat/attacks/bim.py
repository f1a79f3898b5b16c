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
    targets: Labels | None = None,
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross-entropy",
    until_success: bool = False,
    on_step: OnStep | None = None,
) -> AttackResult:
    """FGSM in small steps, each followed by a projection on the ball and the box (Kurakin et al. 2017, section 2.2).

    Of the iterates after the clean image, each image keeps the one that is worst for the model: the goal reached
    before not, then the larger loss. That one is returned of a failed image too.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image; names the direction of a step too.
        targets: the classes wanted, if the attack is to be targeted.
        steps: the paper uses 10 to 100.
        step_size: length of one step in the measure of the budget. The default, 2.5 radii over `steps`, lets the
            ascent reach the boundary and turn there; Kurakin et al. use 1/255 under `Linf`, others the radius over
            `steps`, which is weaker.
        loss: of `LOSSES`.
        until_success: an image stops at its first success, the clean image included, instead of climbing on: cheaper
            where only success counts.
        on_step: called with the steps done and the steps in all.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` under 1, an unknown loss, or a `step_size` that is not a positive number.
    """
    check_ascent(steps, step_size, loss)
    with attacking(model, images, labels, targets) as (clean, goal):
        worst = ascend(
            model,
            clean,
            goal,
            clean,
            budget=budget,
            steps=steps,
            step_size=step_size,
            loss=loss,
            until_success=until_success,
            on_step=on_step,
        )
        return judged(model, worst.images, goal, worst.queries)
