"""Attacks: `(model, images, labels, *, budget, ...) -> AttackResult`, batched, one function per file."""

from quasinat.attacks.active_span import active_span
from quasinat.attacks.apgd import apgd, apgd_targeted
from quasinat.attacks.auto_attack import auto_attack
from quasinat.attacks.bim import bim
from quasinat.attacks.budget import L2, Budget, Dissimilarity, Linf
from quasinat.attacks.budget_text import budget_from_text, budget_text
from quasinat.attacks.calibrated import calibrated
from quasinat.attacks.carlini_wagner import carlini_wagner
from quasinat.attacks.deepfool import deepfool
from quasinat.attacks.expectation import Expectation, worst_of
from quasinat.attacks.fgsm import fgsm
from quasinat.attacks.finite_difference import finite_difference
from quasinat.attacks.goal import LOSSES
from quasinat.attacks.held_to import held_to
from quasinat.attacks.lbfgs import lbfgs
from quasinat.attacks.low_pass import low_pass
from quasinat.attacks.one_pixel import one_pixel
from quasinat.attacks.pgd import pgd
from quasinat.attacks.random_noise import random_noise
from quasinat.attacks.registry import ATTACKS, Attack, attack_named
from quasinat.attacks.result import AttackResult
from quasinat.attacks.routing import routing
from quasinat.attacks.square import square
from quasinat.attacks.transfer import Ensemble, transfer
from quasinat.attacks.universal import UniversalPerturbation, universal, universal_perturbation

__all__ = [
    "ATTACKS",
    "L2",
    "LOSSES",
    "Attack",
    "AttackResult",
    "Budget",
    "Dissimilarity",
    "Ensemble",
    "Expectation",
    "Linf",
    "UniversalPerturbation",
    "active_span",
    "apgd",
    "apgd_targeted",
    "attack_named",
    "auto_attack",
    "bim",
    "budget_from_text",
    "budget_text",
    "calibrated",
    "carlini_wagner",
    "deepfool",
    "fgsm",
    "finite_difference",
    "held_to",
    "lbfgs",
    "low_pass",
    "one_pixel",
    "pgd",
    "random_noise",
    "routing",
    "square",
    "transfer",
    "universal",
    "universal_perturbation",
    "worst_of",
]
