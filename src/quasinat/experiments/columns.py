"""The columns of the paper's tables 1, 2, 5 and 6: the attacks and their budgets in L2-dissimilarity (section 5.1)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import AttackResult, Dissimilarity, bim, carlini_wagner, deepfool, fgsm
from quasinat.experiments.settings import DemoSettings

CLEAN = "clean"
BATCH = 200
BATCH_PIXELS = BATCH * 64 * 64  # of the images of a batch together at most: larger ones go fewer at a time

Attack = Callable[..., AttackResult]


def gray_box_attacks(settings: DemoSettings) -> dict[str, Attack]:
    """The attacks on the vanilla classifier: FGSM at 0.08 and 0.04; BIM, DeepFool and CW held to 0.03."""
    held = Dissimilarity(0.03)
    return {
        "fgsm-0.08": partial(fgsm, budget=Dissimilarity(0.08)),
        "fgsm-0.04": partial(fgsm, budget=Dissimilarity(0.04)),
        "bim-0.03": partial(bim, budget=held, steps=settings.bim_steps),
        "deepfool-0.03": partial(deepfool, budget=held),
        "cw-0.03": partial(
            carlini_wagner,
            budget=held,
            steps=settings.cw_steps,
            search_steps=settings.cw_search_steps,
            initial_constant=settings.cw_constant,
        ),
    }


def white_box_attacks(settings: DemoSettings) -> dict[str, Attack]:
    """The attacks on the defended classifier itself, at the same budgets.

    BIM steps along the gradient itself, the stronger choice inside an L2 ball. DeepFool and CW are not among them: each
    would solve thousands of coding problems an image.
    """
    return {
        "fgsm-0.08": partial(fgsm, budget=Dissimilarity(0.08)),
        "fgsm-0.04": partial(fgsm, budget=Dissimilarity(0.04)),
        "bim-0.03": partial(bim, budget=Dissimilarity(0.03, step="gradient"), steps=settings.white_box_steps),
    }


def attacked(
    attack: Attack, model: nn.Module, images: Images, labels: Labels, *, report: Callable[[int], None]
) -> Images:
    """The adversarial images of a whole set, in batches; `report` hears how many images are done."""
    parts = []
    size = batch_size(images)
    for start in range(0, len(images), size):
        batch = slice(start, start + size)
        parts.append(attack(model, images[batch], labels[batch]).images)
        report(min(start + size, len(images)))
    return torch.cat(parts)


def batch_size(images: Images) -> int:
    """How many images of this size a network takes at a time."""
    return max(1, min(BATCH, BATCH_PIXELS // images[0, 0].numel())) if len(images) else BATCH


@torch.no_grad()
def answers(model: nn.Module, images: Images, labels: Labels, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a model is right about each image, and the probability that it gives its answer; on the CPU."""
    right, confidence = [], []
    size = batch_size(images)
    for start in range(0, len(images), size):
        batch = slice(start, start + size)
        most = model(images[batch].to(device)).softmax(1).max(1)
        right.append(most.indices.cpu() == labels[batch])
        confidence.append(most.values.cpu())
    return torch.cat(right), torch.cat(confidence)
