"""The fast gradient sign method."""

from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks.budget import Budget
from quasinat.attacks.goal import check_loss
from quasinat.attacks.model_access import attacking, loss_and_gradient
from quasinat.attacks.result import AttackResult, judged


def fgsm(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    targets: Labels | None = None,
    loss: str = "cross-entropy",
) -> AttackResult:
    """One step along the sign of the loss gradient (Goodfellow et al. 2015, section 4).

    x_adv = clip(x + e sign(grad_x J(x, y))), with e such that each image meets its budget exactly before clipping: the
    radius itself for `Linf`; for `Dissimilarity` the paper's 0.04 to 0.20. Under `L2` the step is the normalised
    gradient instead of its sign. Pixels with a zero gradient stay. A failed image is returned as attacked.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image.
        targets: the classes wanted, if the attack is to be targeted (Kurakin et al. 2017, section 2.3, in one step).
        loss: of `LOSSES`.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: an unknown loss.

    Examples:
        >>> import torch
        >>> import quasinat as qn
        >>> class Bright(torch.nn.Module):  # class 1 where an image is bright
        ...     def forward(self, images):
        ...         mean = images.mean((1, 2, 3))
        ...         return torch.stack([0.5 - mean, mean - 0.5], 1)
        >>> images, labels = torch.full((1, 1, 2, 2), 0.48), torch.tensor([0])
        >>> result = qn.attacks.fgsm(Bright(), images, labels, budget=qn.Linf(8 / 255))
        >>> result.success, result.images[0, 0, 0, 0].mul(255).round()
        (tensor([True]), tensor(130.))
    """
    check_loss(loss)
    with attacking(model, images, labels, targets) as (clean, goal):
        _, _, gradient = loss_and_gradient(model, clean, goal, loss)
        step = budget.stretched(clean, budget.step_direction(gradient))
        return judged(model, (clean + step).clamp(0, 1), goal, queries=2)
