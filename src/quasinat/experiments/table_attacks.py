"""The columns of the tables: an attack by the name of its column, and the adversarial images of a set."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import (
    AttackResult,
    Dissimilarity,
    Linf,
    bim,
    carlini_wagner,
    deepfool,
    fgsm,
    pgd,
    universal,
    universal_perturbation,
)
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments.columns import CLEAN, Attack
from quasinat.experiments.mean_columns import is_mean, per_image
from quasinat.experiments.table_settings import TableSettings

KNOWN = ("fgsm", "bim", "deepfool", "cw", "universal", "pgd-linf")
LEARNT_ON = 500  # training images of a universal perturbation


def attack_and_size(column: str) -> tuple[str, float]:
    """A column's attack, one of `KNOWN`, and its number: of `fgsm-0.08` and of `fgsm-mean-0.08` ("fgsm", 0.08).

    Raises:
        UsageError: there is no such attack, or its size is no number above 0.
    """
    name, _, size = (per_image(column) if is_mean(column) else column).rpartition("-")
    if name not in KNOWN:
        raise UsageError(f"there is no column {column!r}", did_you_mean(column, [CLEAN, *(f"{n}-0.08" for n in KNOWN)]))
    try:
        radius = float(size)
    except ValueError:
        radius = math.nan
    if not 0 < radius < math.inf:
        raise UsageError(f"the column {column!r} has no size", "write it as fgsm-0.08")
    return name, radius


def column_attack(
    column: str, settings: TableSettings, learn_on: Callable[[], tuple[nn.Module, Images, Labels]]
) -> partial[AttackResult]:
    """The attack that a column names, as `fgsm-0.08` or `pgd-linf-0.031`.

    The number is the L2-dissimilarity of each image (the paper, section 5.1), of `pgd-linf` the radius of the
    L-infinity ball. BIM, DeepFool and CW are held to it. `fgsm-mean-0.06` has the attack of `fgsm-0.06`, to be given to
    `moved_on_average`.

    Args:
        settings: steps and searches.
        learn_on: the model and training images that a universal perturbation is learnt on; asked only for that.

    Raises:
        UsageError: see `attack_and_size`.
    """
    name, radius = attack_and_size(column)
    if name == "pgd-linf":
        return partial(pgd, budget=Linf(radius), steps=settings.white_box_steps, seed=settings.seed)
    held = Dissimilarity(radius)
    if name == "universal":
        model, images, labels = learn_on()
        images, labels = images[:LEARNT_ON], labels[:LEARNT_ON]
        learnt = universal_perturbation(model, images, labels, budget=held, method="gradient", seed=settings.seed)
        return partial(universal, budget=held, perturbation=learnt.perturbation)
    options: dict[str, Any] = {}
    if name == "bim":
        options = {"steps": settings.bim_steps}
    elif name == "cw":
        options = {
            "steps": settings.cw_steps,
            "search_steps": settings.cw_search_steps,
            "initial_constant": settings.cw_constant,
        }
    held_to: dict[str, Attack] = {"fgsm": fgsm, "bim": bim, "deepfool": deepfool, "cw": carlini_wagner}
    return partial(held_to[name], budget=held, **options)
