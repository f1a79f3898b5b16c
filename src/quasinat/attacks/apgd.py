"""Auto-PGD: projected gradient descent (on the negative loss) that finds its own step sizes."""

from dataclasses import dataclass

import torch
from torch import Generator, nn

from quasinat.arrays import Images, Labels, Logits, PerImageBool, PerImageInt
from quasinat.attacks.ascent import check_ascent
from quasinat.attacks.auto_ascent import ascend_by_itself, nothing_yet
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count
from quasinat.attacks.goal import Goal
from quasinat.attacks.model_access import OnStep, attacking, logits_of, part_of
from quasinat.attacks.result import AttackResult, judged


def apgd(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    targets: Labels | None = None,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "cross-entropy",
    until_success: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """Auto-PGD from random points of the ball (Croce & Hein 2020, Algorithm 1); it has no step size to choose.

    The steps start at twice the radius. At each checkpoint an image halves its own if too few steps raised its loss,
    or if its best loss has stood still since the last checkpoint; it then goes on from its best point. Steps under
    `Dissimilarity` follow the gradient, whatever step that budget names. The random starts are those of `pgd`: shared
    between images, so that a result does not depend on the batch. Each image keeps the worst iterate of all restarts,
    the starts included: the goal reached before not, then the larger loss.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image.
        targets: the classes wanted, if the attack is to be targeted.
        steps: per restart; the paper uses 100.
        restarts: how many random starts.
        loss: of `LOSSES`; `cross-entropy` is the paper's APGD-CE, `dlr` its APGD-DLR.
        until_success: an image stops at its first success, and is left out of later restarts.
        seed: of the random starts.
        on_step: called with the steps done and the steps in all, over all restarts.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` or `restarts` under 1, or an unknown loss.
    """
    check_ascent(steps, None, loss)
    check_count("restarts", restarts)
    generator = Generator().manual_seed(seed)
    with attacking(model, images, labels, targets) as (clean, goal):
        kept = nothing_yet(clean, goal)
        for restart in range(restarts):
            start = _random_start(clean, budget, generator)
            rows = (~kept.reached if until_success else torch.ones_like(kept.reached)).nonzero()[:, 0]
            ascend_by_itself(
                model,
                clean,
                goal,
                start,
                rows,
                kept,
                budget=budget,
                steps=steps,
                loss=loss,
                until_success=until_success,
                on_step=part_of(on_step, restart, restarts),
            )
        return judged(model, kept.images, goal, kept.queries)


def apgd_targeted(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    classes: int = 9,
    steps: int = 100,
    loss: str = "dlr",
    seed: int = 0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """Auto-PGD towards one likely wrong class after the other: the APGD-T of AutoAttack (Croce & Hein 2020, section 5).

    Untargeted in what it wants: an image stops at its first error, whichever class the model then says, and one that
    the model gets wrong at the start stays as it is. Of a failed image the iterate of the largest loss towards any of
    its classes is returned.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image, see `apgd`.
        classes: how many of the highest other classes of the clean image are tried, from the highest on; at most all.
        steps: for each class.
        loss: of `LOSSES`, in its targeted form; `dlr` is the paper's.
        seed: of the random starts, one for each class.
        on_step: called with the steps done and the steps in all, over all classes.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: `steps` or `classes` under 1, or an unknown loss.
    """
    check_ascent(steps, None, loss)
    check_count("classes", classes)
    generator = Generator().manual_seed(seed)
    with attacking(model, images, labels) as (clean, goal):
        with torch.no_grad():
            logits = logits_of(model, clean, goal)
        count = min(classes, logits.shape[1] - 1)
        wanted = logits.scatter(1, goal.labels[:, None], -torch.inf).topk(count, dim=1).indices
        kept = nothing_yet(clean, goal)
        kept.reached.copy_(goal.reached(logits))
        kept.queries.add_(1)
        for k in range(count):
            start = _random_start(clean, budget, generator)
            rows = (~kept.reached).nonzero()[:, 0]
            ascend_by_itself(
                model,
                clean,
                AnyError(goal.labels, wanted[:, k]),
                start,
                rows,
                kept,
                budget=budget,
                steps=steps,
                loss=loss,
                until_success=True,
                on_step=part_of(on_step, k, count),
            )
        return judged(model, kept.images, goal, kept.queries)


@dataclass(frozen=True)
class AnyError(Goal):
    """Climbs towards its targets, but is reached as soon as the model leaves the labels."""

    def reached(self, logits: Logits) -> PerImageBool:
        return logits.argmax(1) != self.labels

    def of(self, rows: PerImageInt | PerImageBool) -> "AnyError":
        return AnyError(self.labels[rows], None if self.targets is None else self.targets[rows])


def _random_start(images: Images, budget: Budget, generator: Generator) -> Images:
    """One perturbation, uniform in the unit ball, that all images share, each at its own radius."""
    noise = budget.unit_noise(images.shape[1:], generator).to(images)
    return budget.project(images, images + noise * budget.reach(images)[:, None, None, None])
