"""Noise without any knowledge of the model: the control that an attack has to beat."""

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks.budget import Budget
from quasinat.attacks.model_access import attacking
from quasinat.attacks.result import AttackResult, judged


def random_noise(model: nn.Module, images: Images, labels: Labels, *, budget: Budget, seed: int = 0) -> AttackResult:
    """Adds a random sign to every pixel, scaled so that each image meets its budget exactly before clipping.

    A sanity control: an attack that does no better has found nothing, and a model that falls to this is not robust to
    anything. One sign pattern is drawn per call, on the CPU, and shared by all images, so that an image's result
    depends neither on its batch nor on the device.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image.
        seed: of the sign pattern.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
    """
    with attacking(model, images, labels) as (clean, goal), torch.no_grad():
        coins = torch.randint(2, clean.shape[1:], generator=torch.Generator().manual_seed(seed))
        signs = (2 * coins - 1).to(clean).expand_as(clean)
        return judged(model, (clean + budget.scaled(clean, signs)).clamp(0, 1), goal, queries=0)
