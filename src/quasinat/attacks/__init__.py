"""Attacks: `(model, images, labels, *, budget, ...) -> AttackResult`, untargeted, batched, one function per file."""

from quasinat.attacks.bim import bim
from quasinat.attacks.budget import L2, Budget, Dissimilarity, Linf
from quasinat.attacks.carlini_wagner import carlini_wagner
from quasinat.attacks.deepfool import deepfool
from quasinat.attacks.fgsm import fgsm
from quasinat.attacks.held_to import held_to
from quasinat.attacks.pgd import pgd
from quasinat.attacks.random_noise import random_noise
from quasinat.attacks.registry import ATTACKS, Attack, attack_named
from quasinat.attacks.result import AttackResult

__all__ = [
    "ATTACKS",
    "L2",
    "Attack",
    "AttackResult",
    "Budget",
    "Dissimilarity",
    "Linf",
    "attack_named",
    "bim",
    "carlini_wagner",
    "deepfool",
    "fgsm",
    "held_to",
    "pgd",
    "random_noise",
]
