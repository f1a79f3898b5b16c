"""The attacks by name."""

from collections.abc import Callable

from quasinat.attacks.active_span import active_span
from quasinat.attacks.apgd import apgd, apgd_targeted
from quasinat.attacks.auto_attack import auto_attack
from quasinat.attacks.bim import bim
from quasinat.attacks.carlini_wagner import carlini_wagner
from quasinat.attacks.deepfool import deepfool
from quasinat.attacks.fgsm import fgsm
from quasinat.attacks.finite_difference import finite_difference
from quasinat.attacks.lbfgs import lbfgs
from quasinat.attacks.low_pass import low_pass
from quasinat.attacks.one_pixel import one_pixel
from quasinat.attacks.pgd import pgd
from quasinat.attacks.random_noise import random_noise
from quasinat.attacks.result import AttackResult
from quasinat.attacks.routing import routing
from quasinat.attacks.square import square
from quasinat.attacks.transfer import transfer
from quasinat.attacks.universal import universal
from quasinat.errors import UsageError, did_you_mean

Attack = Callable[..., AttackResult]

ATTACKS: dict[str, Attack] = {
    # along the model's gradient
    "fgsm": fgsm,
    "bim": bim,
    "pgd": pgd,
    "apgd": apgd,
    "apgd-targeted": apgd_targeted,
    "deepfool": deepfool,
    "carlini-wagner": carlini_wagner,
    "lbfgs": lbfgs,
    # from the model's scores, or from nothing
    "square": square,
    "one-pixel": one_pixel,
    "finite-difference": finite_difference,
    "random-noise": random_noise,
    # with something made beforehand: surrogates=, perturbation=
    "transfer": transfer,
    "universal": universal,
    # aimed at the layer of a Defended
    "routing": routing,
    "low-pass": low_pass,
    "active-span": active_span,
    # through an optional package
    "auto-attack": auto_attack,
}
"""Each takes `(model, images, labels, *, budget)` and options of its own."""


def attack_named(name: str) -> Attack:
    """The attack of that name.

    Args:
        name: a key of `ATTACKS`.

    Raises:
        UsageError: there is none; names the closest.

    Examples:
        >>> from quasinat.attacks import attack_named
        >>> attack_named("bim").__name__
        'bim'
        >>> attack_named("fsgm")
        Traceback (most recent call last):
            ...
        quasinat.errors.UsageError: unknown attack 'fsgm'; did you mean 'fgsm'? Known: ...
    """
    if name not in ATTACKS:
        raise UsageError(f"unknown attack {name!r}", did_you_mean(name, list(ATTACKS)))
    return ATTACKS[name]
