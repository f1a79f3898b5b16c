"""The attacks by name."""

from collections.abc import Callable

from quasinat.attacks.bim import bim
from quasinat.attacks.carlini_wagner import carlini_wagner
from quasinat.attacks.deepfool import deepfool
from quasinat.attacks.fgsm import fgsm
from quasinat.attacks.pgd import pgd
from quasinat.attacks.random_noise import random_noise
from quasinat.attacks.result import AttackResult
from quasinat.errors import UsageError, did_you_mean

Attack = Callable[..., AttackResult]

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "bim": bim,
    "pgd": pgd,
    "deepfool": deepfool,
    "carlini-wagner": carlini_wagner,
    "random-noise": random_noise,
}
"""Each takes `(model, images, labels, *, budget)` and options of its own."""


def attack_named(name: str) -> Attack:
    """The attack of that name.

    Raises:
        UsageError: there is none; names the closest.
    """
    if name not in ATTACKS:
        raise UsageError(f"unknown attack {name!r}", did_you_mean(name, list(ATTACKS)))
    return ATTACKS[name]
