"""What an attack hands back, and how much it changed the images."""

from dataclasses import dataclass

import torch
from torch import nn

from quasinat.arrays import Images, Labels, PerImageBool, PerImageInt
from quasinat.attacks.budget import Dissimilarity, Linf
from quasinat.attacks.model_access import errs, logits_of


@dataclass(frozen=True)
class Distortion:
    """Means over a batch of what was really used, after clipping; PSNR in decibels, infinite where nothing moved."""

    dissimilarity: float
    linf: float
    psnr: float


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

    def distortion(self, originals: Images) -> Distortion:
        """How far the images are from the clean ones, averaged over the batch."""
        return distortion(originals, self.images)


def distortion(originals: Images, images: Images) -> Distortion:
    """Mean L2-dissimilarity, L-infinity and PSNR (of images in [0, 1]) of a batch, `B C H W` both."""
    mean_squares = (images - originals).flatten(1).square().mean(1)
    return Distortion(
        dissimilarity=float(Dissimilarity(0.0).measure(originals, images).mean()),
        linf=float(Linf(0.0).measure(originals, images).mean()),
        psnr=float((-10 * mean_squares.log10()).mean()),
    )


def judged(model: nn.Module, images: Images, labels: Labels, queries: PerImageInt | int) -> AttackResult:
    """Re-checks the final images on the model and counts that query too."""
    with torch.no_grad():
        success = errs(logits_of(model, images, labels), labels)
    if isinstance(queries, int):
        queries = torch.full_like(labels, queries)
    return AttackResult(images.detach(), success, queries + 1)
