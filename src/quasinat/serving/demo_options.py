"""What a visitor of the demo page may ask for: the attack, what it knows, its budget, lambda, the image's size."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quasinat.attacks import Budget, Dissimilarity, Linf, budget_from_text
from quasinat.errors import UsageError, did_you_mean

NONE, NOISE, GRAY, TRUE, BPDA = "none", "random-noise", "gray-box", "white-box", "white-box-identity"
ATTACKS_SHOWN: dict[str, dict[str, Any]] = {
    NONE: {},
    "fgsm": {},
    "bim": {"steps": 20},
    "pgd": {"steps": 20},
    "deepfool": {"steps": 10, "candidates": 5},
    "carlini-wagner": {"steps": 15, "search_steps": 2, "initial_constant": 1.0},
    NOISE: {},
}
"""The attacks of the page with their options: few steps, for a visitor waits, and one thread serves everybody."""
THREATS = {
    GRAY: "the plain classifier",
    TRUE: "the defended classifier, along its true gradient",
    BPDA: "the defended classifier, with the identity in place of the layer's gradient",
}
"""What the attack is run on."""
SIDES = (32, 48, 64, 96)  # pixels of an image's longer side, at most
REACH = 4  # lambda is at least the layer's own over this, and at most that times this
LARGEST: dict[type[Budget], tuple[str, float]] = {
    Linf: ("linf:32/255", 32 / 255),
    Dissimilarity: ("dissimilarity:0.3", 0.3),
}
NAMES = ("attack", "threat", "budget", "lambda", "side")


@dataclass(frozen=True)
class DemoOptions:
    """A request, checked.

    Attributes:
        attack: of `ATTACKS_SHOWN`.
        threat: of `THREATS`; None of an attack that looks at no classifier.
        budget: per image.
        sparsity: lambda of the projection, and of the layer that a white-box attack is run on.
        side: the image's longer side is scaled down to so many pixels, if it has more.
    """

    attack: str
    threat: str | None
    budget: Budget
    sparsity: float
    side: int


def parse_options(query: Mapping[str, str], *, learned: float, threats: Iterable[str]) -> DemoOptions:
    """The options of a query.

    Args:
        query: the parameters by name; those of `NAMES` that are left out have their usual value.
        learned: the layer's own lambda.
        threats: those of `THREATS` that the classifiers at hand allow; the first is the usual one.

    Raises:
        UsageError: an unknown parameter, or a value that is unknown, out of range or not to be had here.
    """
    for name in query:
        if name not in NAMES:
            raise UsageError(f"unknown option {name!r}", did_you_mean(name, list(NAMES)))
    possible = list(threats)
    attack = _one_of("attack", query.get("attack", "pgd" if possible else NOISE), ATTACKS_SHOWN)
    side = _one_of("side", query.get("side", str(SIDES[0])), [str(side) for side in SIDES])
    threat = None if attack in (NONE, NOISE) else _threat(attack, query.get("threat"), possible)
    budget = _budget(query.get("budget", "linf:8/255"))
    return DemoOptions(attack, threat, budget, _sparsity(query.get("lambda"), learned), int(side))


def _one_of(name: str, value: str, known: Iterable[str]) -> str:
    if value not in (choices := list(known)):
        raise UsageError(f"unknown {name} {value!r}", did_you_mean(value, choices))
    return value


def _threat(attack: str, wanted: str | None, possible: list[str]) -> str:
    if not possible:
        problem = f"there is no classifier here that {attack} could attack"
        raise UsageError(problem, f"choose {NOISE} or {NONE}, or start the service with one")
    threat = _one_of("threat", wanted or possible[0], THREATS)
    if threat not in possible:
        problem = f"{threat} attacks {THREATS[threat]}, and there is none here"
        raise UsageError(problem, f"choose {' or '.join(possible)}, or start the service with one")
    return threat


def _budget(text: str) -> Budget:
    budget = budget_from_text(text)
    if type(budget) not in LARGEST:
        raise UsageError(f"the budget {text!r} is not one of the page's", "write linf:8/255 or dissimilarity:0.03")
    most, size = LARGEST[type(budget)]
    if budget.size > size:
        raise UsageError(f"the budget {text!r} is too large", f"give at most {most}")
    return budget


def _sparsity(text: str | None, learned: float) -> float:
    if text is None:
        return learned
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"lambda {text!r} is no number", f"give one such as {learned:g}") from None
    if not learned / REACH <= value <= learned * REACH:
        remedy = f"give one from {learned / REACH:g} to {learned * REACH:g}"
        raise UsageError(f"lambda {text} is too far from the layer's own, {learned:g}", remedy)
    return value
