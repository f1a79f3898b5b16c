"""What an attack hands back."""

from dataclasses import dataclass

import torch
from torch import nn

from quasinat.arrays import Images, Labels, PerImageBool, PerImageInt
from quasinat.attacks.model_access import errs, logits_of


@dataclass(frozen=True)
class AttackResult:
    """The answer of every attack, for untargeted attacks on the model under attack.

    Attributes:
        images: the last or best iterate of each image, clipped to [0, 1]; a failed image is never swapped for the
            clean one.
        success: whether the model errs on the image as returned, re-checked after clipping.
        queries: what each image cost: one per forward pass, one per backward pass, the re-check included.
    """

    images: Images
    success: PerImageBool
    queries: PerImageInt


def judged(model: nn.Module, images: Images, labels: Labels, queries: PerImageInt | int) -> AttackResult:
    """Re-checks the final images on the model and counts that query too."""
    with torch.no_grad():
        success = errs(logits_of(model, images, labels), labels)
    if isinstance(queries, int):
        queries = torch.full_like(labels, queries)
    return AttackResult(images.detach(), success, queries + 1)
