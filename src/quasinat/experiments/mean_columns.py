"""Attacks whose L2-dissimilarity is a mean over the set: one strength for all images (Guo et al. 2018; table 3)."""

from functools import partial

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import AttackResult, Dissimilarity, calibrated
from quasinat.errors import UsageError
from quasinat.experiments.kept_attacks import Keep, keeping

MEAN = "-mean"  # ends the attack's name in a column's, as `fgsm-mean-0.06`
CLIMBING = ("fgsm", "bim")  # their strength is the radius of an L-infinity ball; the others' perturbations are scaled
TOLERANCE = 5e-3  # of the mean; iterated attacks leap
SCALINGS = 40


def is_mean(column: str) -> bool:
    """Whether a column's size is a mean over the set."""
    return column.rpartition("-")[0].endswith(MEAN)


def per_image(column: str) -> str:
    """The column of the same attack that holds each image to the size."""
    name, _, size = column.rpartition("-")
    return f"{name.removesuffix(MEAN)}-{size}"


def moved_on_average(
    column: str,
    attack: partial[AttackResult],
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    batch_size: int,
    keep: Keep,
) -> Images:
    """The adversarial images of a whole set, which move by the column's size on average.

    FGSM and BIM have one L-infinity radius for all images, found by `calibrated`. DeepFool's and Carlini-Wagner's
    perturbations, as small as they find them, are scaled by one factor, and so is a universal one; the images are
    clipped to [0, 1] after that.

    Args:
        column: such as `fgsm-mean-0.06`.
        attack: of the column `per_image(column)`, with its budget.
        model: images to logits.
        images: the clean ones, `B C H W` in [0, 1].
        labels: the true classes.
        batch_size: images attacked at a time.
        keep: of each batch at each strength that is tried, see `keeping`.

    Raises:
        UsageError: the attack does not move the images, or not as far.
    """
    name, _, size = column.rpartition("-")
    name, target = name.removesuffix(MEAN), float(size)
    options = {key: value for key, value in attack.keywords.items() if key != "budget"}
    if name in CLIMBING:
        options |= {"tolerance": TOLERANCE, "batch_size": batch_size}
        attack_of = keeping(attack.func, keep)
        return calibrated(attack_of, model, images, labels, target=Dissimilarity(target), **options).images
    made = keeping(attack if name == "universal" else partial(attack.func, **options), keep)
    parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    attacked = torch.cat([made(model, *part).images for part in parts])
    return scaled_to_mean(images, attacked, target)


def scaled_to_mean(images: Images, attacked: Images, target: float) -> Images:
    """All perturbations times the factor at which the mean L2-dissimilarity, after clipping to [0, 1], is the target.

    Raises:
        UsageError: no factor does it.
    """
    measure = Dissimilarity(target).measure

    def mean(factor: float) -> float:
        return float(measure(images, scaled(images, attacked, factor)).double().mean())

    low, high = 0.0, 1.0
    while mean(high) < target:
        low, high = high, 2 * high
        if high > 2**20:
            raise UsageError(f"the attack does not move the images by {target:.4g} on average", "lower its size")
    for _ in range(SCALINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < target else (low, middle)
    return scaled(images, attacked, high)


def scaled(images: Images, attacked: Images, factor: float) -> Images:
    """Every perturbation times a factor, clipped to [0, 1]."""
    return (images + factor * (attacked - images)).clamp(0, 1)
