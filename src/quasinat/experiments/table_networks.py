"""The network-side defences of the tables: classifiers that are trained or run differently, and the LID detector."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from quasinat.attacks import Dissimilarity, Linf, bim
from quasinat.data.draws import generator_for
from quasinat.defences import (
    ActivationPruning,
    Detector,
    LocalDimensionDetector,
    RegionVote,
    noise_like,
    train_on_fgsm,
    train_on_pgd,
)
from quasinat.experiments.table_parts import Parts
from quasinat.training import train_classifier, train_distilled, train_saturating, train_trades

RADIUS = 8 / 255  # of adversarial training, L-infinity
LID_REFERENCE, LID_IMAGES = 100, 300  # training images that neighbours are looked for in, and that the detector sees
FALSE_POSITIVES = 0.05
Guarded = tuple[nn.Module, Detector | None]


def _trained(
    parts: Parts, name: str, train: Callable[..., nn.Module], *, adversarial: bool = False, **more: str
) -> Guarded:
    epochs = parts.settings.adversarial_epochs if adversarial else parts.settings.epochs
    images = parts.data.train_images
    return parts.classifier(name, lambda: images, train, epochs=epochs, network=more), None


def _control(parts: Parts, name: str = "control", epochs: int | None = None) -> Guarded:
    """A second vanilla network: what it withstands of the images made on the first is no defence's merit."""
    images = parts.data.train_images
    return parts.classifier(name, lambda: images, epochs=epochs, seed=parts.settings.seed + 1), None


def _fgsm(parts: Parts) -> Guarded:
    return _trained(parts, "adversarial-fgsm", train_on_fgsm, adversarial=True)


def _pgd(parts: Parts) -> Guarded:
    train = partial(train_on_pgd, budget=Linf(RADIUS), steps=parts.settings.adversarial_steps)
    return _trained(parts, "adversarial-pgd", train, adversarial=True)


def _trades(parts: Parts) -> Guarded:
    train = partial(train_trades, radius=RADIUS, steps=parts.settings.adversarial_steps)
    return _trained(parts, "trades", train, adversarial=True)


def _thermometer(parts: Parts) -> Guarded:
    return _trained(parts, "thermometer", train_classifier, encoding="thermometer")


def _thermometer_adversarial(parts: Parts) -> Guarded:
    train = partial(train_on_pgd, budget=Linf(RADIUS), steps=parts.settings.adversarial_steps)
    return _trained(parts, "thermometer-adversarial", train, adversarial=True, encoding="thermometer")


def _saturating(parts: Parts) -> Guarded:
    return _trained(parts, "saturating", train_saturating, activation="saturating")


def _distillation(parts: Parts) -> Guarded:
    teacher, _ = _trained(parts, "distillation-teacher", train_distilled)
    return _trained(parts, "distillation", partial(train_distilled, teacher=teacher))


def _sap(parts: Parts) -> Guarded:
    return ActivationPruning(parts.vanilla(), seed=parts.settings.seed).eval(), None


def _region(parts: Parts) -> Guarded:
    return RegionVote(parts.vanilla(), votes=parts.settings.votes, seed=parts.settings.seed).eval(), None


def _lid(parts: Parts) -> Guarded:
    """The vanilla classifier with the detector in front, fitted to BIM's images and set to 5 % false positives."""
    vanilla, half = parts.vanilla(), parts.data
    drawn = torch.randperm(len(half.train_images), generator=generator_for(parts.settings.seed, "lid"))
    around = min(LID_REFERENCE, len(drawn) // 2)
    count = min(LID_IMAGES, (len(drawn) - around) // 2)
    reference, fitted, held_out = drawn[: around + 2 * count].split([around, count, count])
    images = half.train_images[fitted].to(parts.device)
    labels = half.train_labels[fitted].to(parts.device)
    attacked = bim(vanilla, images, labels, budget=Dissimilarity(0.03), steps=parts.settings.bim_steps).images
    detector = LocalDimensionDetector(vanilla, half.train_images[reference].to(parts.device)).eval()
    detector.fit(images, noise_like(images, attacked, seed=parts.settings.seed), attacked)
    detector.calibrate(half.train_images[held_out].to(parts.device), FALSE_POSITIVES)
    return vanilla, detector


NETWORKS: dict[str, Callable[[Parts], Guarded]] = {
    "control": _control,
    "control-60": partial(_control, name="control-60", epochs=60),  # as the longest trained one of the variants
    "fgsm": _fgsm,
    "pgd": _pgd,
    "trades": _trades,
    "thermometer": _thermometer,
    "thermometer-adversarial": _thermometer_adversarial,
    "saturating": _saturating,
    "distillation": _distillation,
    "sap": _sap,
    "region": _region,
    "lid": _lid,
}
"""By the name in `tables/rows.toml`: the classifier in eval mode, and the detector in front of it if it has one."""
