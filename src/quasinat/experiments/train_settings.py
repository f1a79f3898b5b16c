"""The settings of a classifier's training: what decides its weights, checked before anything is read."""

import math
from dataclasses import dataclass, fields
from typing import Any

from quasinat.attacks import Budget, Linf
from quasinat.attacks.budget_text import budget_text
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments.settings import DemoSettings
from quasinat.experiments.trainings import TRAININGS, usual_options
from quasinat.networks.thermometer import MOST_LEVELS
from quasinat.networks.vgg import ENCODINGS

KINDS = tuple(TRAININGS)
_USUAL = {kind: usual_options(kind) for kind in KINDS}
_OWN = {name: [kind for kind in KINDS if name in _USUAL[kind]] for usual in _USUAL.values() for name in usual}


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a classifier's weights but the images' files, the layer and the device.

    Attributes:
        kind: "vanilla", "retrained" (on T of the training images; the paper, section 3.5), "adversarial" (on PGD's),
            "fgsm", "trades", "saturating" or "distilled"; see `TRAININGS`.
        data, root, image_size, colour, convert: the image set, see `quasinat.data.load`.
        train_per_class: training images drawn of each class; all where it is None.
        network, epochs, batch_size, learning_rate: the classifier and its training, see `train_classifier`. The teacher
            of `distilled` has as many epochs as the student.
        noise: deviation of Gaussian noise on the training images, then clipped to [0, 1], for randomised smoothing
            (Cohen et al. 2019, section 3.3). It is drawn for every batch anew, and after the attack of `adversarial`
            and `fgsm`; of `retrained` once for each copy, before the layer.
        copies: of the training images that `retrained` adds noise to and transforms; a randomised transformation draws
            anew for each.
        budget: of `adversarial`, the largest of `fgsm`, and of `trades`, where it is of the kind `Linf`.
        steps: of the attack of `adversarial` or `trades`.
        share: the part of each batch that `adversarial` or `fgsm` perturbs.
        beta, penalty, temperature: of `trades`, `saturating` and `distilled`.
        encoding, levels: "thermometer" and how many; of the kinds that minimise the cross-entropy alone: `vanilla`,
            `retrained`, `adversarial` and `fgsm`.
        seed: of everything.

    From `budget` to `levels` None is the usual value of the kind, which `own` has.

    Raises:
        UsageError: a value that is unknown, out of range, or of another kind or image set.
    """

    kind: str = "vanilla"
    data: str = "photographs"
    root: str | None = None
    image_size: int = 32
    colour: bool = False
    convert: str | None = None
    train_per_class: int | None = None
    network: str = "vgg-small"
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 4e-3
    noise: float = 0.0
    copies: int = 1
    budget: Budget | None = None
    steps: int | None = None
    share: float | None = None
    beta: float | None = None
    penalty: float | None = None
    temperature: float | None = None
    encoding: str | None = None
    levels: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no training {self.kind!r}", did_you_mean(self.kind, list(KINDS)))
        self.images()
        for name, least in (("batch_size", 2), ("copies", 1)):
            _check_least(name, getattr(self, name), least)
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"--learning-rate {self.learning_rate} is not above zero", "0.004 is usual")
        if not 0 <= self.noise < math.inf:
            raise UsageError(f"--noise {self.noise} is not a finite number >= 0", "0 is none, 0.12 to 0.5 are usual")
        foreign = {name: kinds for name, kinds in _OWN.items() if self.kind not in kinds}
        given = {name: kinds for name, kinds in foreign.items() if getattr(self, name) is not None}
        if self.kind != "retrained" and self.copies > 1:
            given["copies"] = ["retrained"]
        for name, kinds in given.items():
            *others, last = kinds
            choice = f"{', '.join(others)} or {last}" if others else last
            raise UsageError(f"--{name} is no option of the training {self.kind!r}", f"leave it out, or train {choice}")
        self._check_own()

    def _check_own(self) -> None:
        """Refuses the kind's options that are out of range."""
        own = self.own
        _check_least("steps", own.get("steps", 1), 1)
        if not 0 <= own.get("share", 0) <= 1:
            raise UsageError(f"--share {self.share} is not in [0, 1]", "1 perturbs every image, 0.5 half of each batch")
        for name, remedy in (("beta", "6 is usual"), ("penalty", "3 is usual")):
            if not 0 <= own.get(name, 0) < math.inf:
                raise UsageError(f"--{name} {own[name]} is not a finite number >= 0", remedy)
        if not 0 < own.get("temperature", 1) < math.inf:
            raise UsageError(f"--temperature {self.temperature} is not a finite number above zero", "100 is usual")
        if self.kind == "trades" and not (isinstance(own["budget"], Linf) and own["budget"].size < math.inf):
            problem = f"--budget {budget_text(own['budget'])} is no radius of the training 'trades'"
            raise UsageError(problem, "give a finite one of the kind linf, such as linf:8/255")
        encoding = own.get("encoding", "none")
        if encoding not in ENCODINGS:
            raise UsageError(f"unknown --encoding {encoding!r}", did_you_mean(encoding, list(ENCODINGS)))
        if self.levels is not None and encoding == "none":
            raise UsageError("--levels is of the thermometer", "leave it out, or give --encoding thermometer")
        if not 2 <= own.get("levels", 2) <= MOST_LEVELS:
            raise UsageError(f"--levels {self.levels} is not in [2, {MOST_LEVELS}]", "16 is usual")

    @property
    def own(self) -> dict[str, Any]:
        """The options of this kind's training: what was given, or else the kind's usual value."""
        given = {name: getattr(self, name) for name in _USUAL[self.kind]}
        return _USUAL[self.kind] | {name: value for name, value in given.items() if value is not None}

    def images(self) -> DemoSettings:
        """The same image set and classifier for the functions that take the demonstration's settings."""
        shared = {field.name for field in fields(DemoSettings)} & {field.name for field in fields(self)}
        given = {name: getattr(self, name) for name in shared}
        return DemoSettings(**{name: value for name, value in given.items() if value is not None})

    def as_json(self) -> dict[str, Any]:
        """The settings that play a part, with the values used, as JSON holds them, without the place of the images."""
        own = self.own
        silent = {"root", *(_OWN.keys() - own.keys())}
        if self.kind != "retrained":
            silent.add("copies")
        if own.get("encoding") == "none":
            silent |= {"encoding", "levels"}
        values = {field.name: getattr(self, field.name) for field in fields(self)} | own
        if "budget" in own:
            values["budget"] = budget_text(own["budget"])
        return {name: value for name, value in values.items() if name not in silent}


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"--{name.replace('_', '-')} {value} is too small", f"give at least {least}")
