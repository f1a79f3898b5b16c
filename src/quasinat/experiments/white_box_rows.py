"""The rows of a white-box evaluation: who is attacked, with which attack, along which gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import AttackResult, Budget, Dissimilarity, bim, pgd, random_noise
from quasinat.attacks.active_span import active_span
from quasinat.attacks.apgd import apgd
from quasinat.attacks.expectation import Expectation
from quasinat.attacks.low_pass import low_pass
from quasinat.attacks.routing import routing
from quasinat.attacks.square import square
from quasinat.attacks.transfer import transfer
from quasinat.defended import Defended
from quasinat.experiments.white_box_settings import WhiteBoxSettings
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Adjoint, Identity, Implicit, Unrolled

Attack = Callable[[Images, Labels], AttackResult]


class Fallbacks:
    """Counts the image gradients that were asked of `Implicit`'s fallback, among all of them."""

    def __init__(self) -> None:
        self.fell = 0

    def __call__(self, fell: int, of: int) -> None:
        self.fell += fell


@dataclass(frozen=True)
class Parties:
    """The models of an evaluation.

    Attributes:
        defended: what is evaluated.
        base: the undefended network: same architecture, clean training images.
        adversarial: the same architecture, adversarially trained; `None` where there is none.
        randomised: whether `defended` gives one image different logits.
        fallbacks: counts those of the implicit gradient.
    """

    defended: Defended
    base: nn.Module | None
    adversarial: nn.Module | None
    randomised: bool
    fallbacks: Fallbacks

    def named(self, adjoint: Adjoint, settings: WhiteBoxSettings) -> nn.Module:
        """The defended model with a named gradient; of a randomised one the mean over its randomness."""
        if isinstance(adjoint, Implicit):
            adjoint = replace(adjoint, on_fallback=self.fallbacks)
        model = self.defended.with_adjoint(adjoint, clipping=settings.clipping)
        if not self.randomised:
            return model
        options: dict[str, Any] = {"samples": settings.samples, "seed": settings.seed}
        if self.has_layer:  # which draws nothing: what does is behind it, and the attacks aimed at it still see it
            expected = Expectation(model.classifier, **options)
            return Defended(model.transform, expected, eight_bit=model.eight_bit)
        return Expectation(model, **options)

    def best(self, settings: WhiteBoxSettings) -> nn.Module:
        """With the truest gradient that its transformation has."""
        return self.named(Implicit() if self.has_layer else Identity(), settings)

    @property
    def has_layer(self) -> bool:
        """Whether the transformation is a Sparse Transformation Layer."""
        return isinstance(self.defended.transform, SparseTransformationLayer)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        title: the attack, in words.
        gradient: what it follows, in words.
        model: who is attacked: a field of `Parties`.
        images: the setting that says how many images.
        prepare: makes the attack, for the parties, the settings and a budget.
        needs: "layer", "strata", "split", or nothing.
        kind: "gradient", "layer" (aimed at the layer itself), "blind" (without the defended model's gradient).
    """

    title: str
    gradient: str
    prepare: Callable[[Parties, WhiteBoxSettings, Budget], Attack]
    model: str = "defended"
    images: str = "images"
    needs: str = ""
    kind: str = "gradient"

    def missing(self, parties: Parties) -> str | None:
        """Why the row cannot be run with these parties; `None` if it can."""
        if getattr(parties, self.model) is None:
            return f"no {self.model} model was given"
        layer = parties.defended.transform
        if self.needs and not isinstance(layer, SparseTransformationLayer):
            return "there is no Sparse Transformation Layer"
        if self.needs == "strata" and isinstance(layer, SparseTransformationLayer) and layer.strata is None:
            return "the layer has no strata"
        if self.needs == "split" and isinstance(layer, SparseTransformationLayer) and layer.split != "tikhonov":
            return "the layer passes no band through"
        if self.title.startswith("Transfer") and parties.base is None:
            return "no base model was given"
        return None


def steepest(budget: Budget) -> Budget:
    """The budget with the stronger direction of a step: in an L2 ball along the gradient, not its sign."""
    return replace(budget, step="gradient") if isinstance(budget, Dissimilarity) else budget


def strongest(model: nn.Module, images: Images, labels: Labels, attacks: Sequence[Callable[..., Any]]) -> AttackResult:
    """Several attacks one after the other, each on the images that still stand."""
    result = attacks[0](model, images, labels)
    found, success, queries = result.images.clone(), result.success.clone(), result.queries.clone()
    for attack in attacks[1:]:
        rows = (~success).nonzero()[:, 0]
        if len(rows):
            more = attack(model, images[rows], labels[rows])
            found[rows], success[rows] = more.images, more.success
            queries[rows] += more.queries
    return AttackResult(found, success, queries)


def persistent(model: nn.Module, images: Images, labels: Labels, attack: Callable[..., AttackResult]) -> AttackResult:
    """An attack that stops at success, and once more to its end where what it stopped at is none as deployed.

    With a gradient named a layer is solved more exactly than deployed (`Implicit.forward_tolerance`), or by other steps
    (`Unrolled`): what fools the one need not fool the other.
    """
    result = attack(model, images, labels, until_success=True)
    rows = (~result.success).nonzero()[:, 0]
    with torch.enable_grad():
        seen = model(result.images[rows].clone().requires_grad_(True)).argmax(1) if len(rows) else labels[rows]
    rows = rows[seen != labels[rows]]
    if not len(rows):
        return result
    more = attack(model, images[rows], labels[rows], until_success=False)
    found, success, queries = result.images.clone(), result.success.clone(), result.queries.clone()
    found[rows], success[rows] = more.images, more.success
    queries[rows] += more.queries
    return AttackResult(found, success, queries)


def _pgd(adjoint: Callable[[WhiteBoxSettings], Adjoint], loss: str, steps: str = "steps") -> Any:
    def prepare(parties: Parties, settings: WhiteBoxSettings, budget: Budget) -> Attack:
        model, options = parties.named(adjoint(settings), settings), _climb(settings, budget, getattr(settings, steps))
        return lambda x, y: persistent(model, x, y, partial(pgd, loss=loss, **options))

    return prepare


def _climb(settings: WhiteBoxSettings, budget: Budget, steps: int) -> dict[str, Any]:
    return {
        "budget": steepest(budget),
        "steps": steps,
        "restarts": settings.restarts,
        "seed": settings.seed,
    }


def _apgd(parties: Parties, settings: WhiteBoxSettings, budget: Budget) -> Attack:
    model, options = parties.best(settings), _climb(settings, budget, settings.steps)
    return lambda x, y: persistent(model, x, y, partial(apgd, loss="dlr", **options))


def _aimed(attack: Callable[..., AttackResult]) -> Any:
    def prepare(parties: Parties, settings: WhiteBoxSettings, budget: Budget) -> Attack:
        model = parties.best(settings)
        return lambda x, y: attack(model, x, y, budget=steepest(budget), steps=settings.layer_steps)

    return prepare


def _undefended(which: str) -> Any:
    def prepare(parties: Parties, settings: WhiteBoxSettings, budget: Budget) -> Attack:
        model, options = getattr(parties, which), _climb(settings, budget, settings.steps) | {"until_success": True}
        attacks = [
            lambda m, x, y: pgd(m, x, y, loss="cross-entropy", **options),
            lambda m, x, y: pgd(m, x, y, loss="margin", **options),
            lambda m, x, y: apgd(m, x, y, loss="dlr", **options),
        ]
        return lambda x, y: strongest(model, x, y, attacks)

    return prepare


def _noise(parties: Parties, settings: WhiteBoxSettings, budget: Budget) -> Attack:
    return lambda x, y: random_noise(parties.defended, x, y, budget=budget, seed=settings.seed)


def _transfer(whole: bool) -> Any:
    def prepare(parties: Parties, settings: WhiteBoxSettings, budget: Budget) -> Attack:
        surrogates = [parties.base, *([parties.defended.classifier, parties.adversarial] if whole else [])]
        given = [model for model in surrogates if model is not None]

        def attack(x: Images, y: Labels) -> AttackResult:
            options: dict[str, Any] = {"surrogates": given, "attack": bim, "steps": settings.steps}
            return transfer(parties.defended, x, y, budget=steepest(budget), **options)

        return attack

    return prepare


def _square(parties: Parties, settings: WhiteBoxSettings, budget: Budget) -> Attack:
    model = parties.named(Identity(), settings)  # of which no gradient is asked
    options: dict[str, Any] = {"queries": settings.square_queries, "seed": settings.seed}
    return lambda x, y: square(model, x, y, budget=budget, **options)


def _implicit(settings: WhiteBoxSettings) -> Adjoint:
    return Implicit()


ROWS: dict[str, Row] = {
    "noise": Row("Random noise", "none", _noise, images="black_box_images", kind="blind"),
    "oblivious": Row("Transfer of BIM on the undefended network", "the network's", _transfer(False), kind="blind"),
    "transfer": Row("Transfer of BIM on all networks at once", "the networks'", _transfer(True), kind="blind"),
    "square": Row("Square", "none", _square, images="black_box_images", kind="blind"),
    "identity": Row("PGD, cross-entropy", "identity (BPDA)", _pgd(lambda settings: Identity(), "cross-entropy")),
    "unrolled": Row(
        "PGD, cross-entropy",
        "unrolled",
        _pgd(lambda settings: Unrolled(settings.unrolled), "cross-entropy", "unrolled_steps"),
        images="unrolled_images",
        needs="layer",
    ),
    "implicit": Row("PGD, cross-entropy", "implicit (true)", _pgd(_implicit, "cross-entropy"), needs="layer"),
    "implicit-margin": Row("PGD, margin", "implicit (true)", _pgd(_implicit, "margin"), needs="layer"),
    "implicit-apgd": Row("APGD, DLR", "implicit (true)", _apgd, needs="layer"),
    "routing": Row("Routing", "implicit, and the vote's", _aimed(routing), needs="strata", kind="layer"),
    "low-pass": Row("Low-pass", "implicit, in the band passed", _aimed(low_pass), needs="split", kind="layer"),
    "active-span": Row("Active span", "implicit, in the atoms' span", _aimed(active_span), needs="layer", kind="layer"),
    "base": Row("PGD (two losses) and APGD", "its own", _undefended("base"), model="base"),
    "adversarial": Row("PGD (two losses) and APGD", "its own", _undefended("adversarial"), model="adversarial"),
}
"""In the order of the table. The worst case is over those whose model is `defended`."""

LOSSES = {"identity": "cross-entropy", "implicit": "cross-entropy", "implicit-margin": "margin", "implicit-apgd": "dlr"}
"""The loss that each row of PGD and APGD climbs."""


@torch.no_grad()
def is_right(model: nn.Module, images: Images, labels: Labels, batch: int = 100) -> torch.Tensor:
    """Whether the model reads each image right."""
    parts = [model(images[i : i + batch]).argmax(1) == labels[i : i + batch] for i in range(0, len(images), batch)]
    return torch.cat(parts)
