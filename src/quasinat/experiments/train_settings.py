"""The settings of a classifier's training: what decides its weights, checked before anything is read."""

import math
from dataclasses import dataclass, fields
from typing import Any

from quasinat.attacks import Budget, Linf
from quasinat.attacks.budget_text import budget_text
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments.settings import DemoSettings

KINDS = ("vanilla", "retrained", "adversarial")
USUAL_BUDGET = Linf(8 / 255)  # Madry et al. 2018, of CIFAR-10
_OWN = {"copies": "retrained", "budget": "adversarial", "steps": "adversarial", "share": "adversarial"}


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a classifier's weights but the images' files, the layer and the device.

    Attributes:
        kind: "vanilla", "retrained" (on T of the training images; the paper, section 3.5) or "adversarial".
        data, root, image_size, colour, convert: the image set, see `quasinat.data.load`.
        train_per_class: training images drawn of each class; all where it is None.
        network, epochs, batch_size, learning_rate: the classifier and its training, see `train_classifier`.
        noise: deviation of Gaussian noise on the training images, then clipped to [0, 1], for randomised smoothing
            (Cohen et al. 2019, section 3.3). It is drawn for every batch anew, and after the attack of `adversarial`;
            of `retrained` once for each copy, before the layer.
        copies: of the training images that `retrained` adds noise to and transforms; a randomised transformation draws
            anew for each.
        budget, steps, share: of `adversarial`: PGD's budget and steps, and the part of each batch that it perturbs.
        seed: of everything.

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
    budget: Budget = USUAL_BUDGET
    steps: int = 7
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no training {self.kind!r}", did_you_mean(self.kind, list(KINDS)))
        self.images()
        for name, least in (("batch_size", 2), ("copies", 1), ("steps", 1)):
            if getattr(self, name) < least:
                problem = f"--{name.replace('_', '-')} {getattr(self, name)} is too small"
                raise UsageError(problem, f"give at least {least}")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"--learning-rate {self.learning_rate} is not above zero", "0.004 is usual")
        if not 0 <= self.noise < math.inf:
            raise UsageError(f"--noise {self.noise} is not a finite number >= 0", "0 is none, 0.12 to 0.5 are usual")
        if not 0 <= self.share <= 1:
            raise UsageError(f"--share {self.share} is not in [0, 1]", "1 perturbs every image, 0.5 half of each batch")
        usual = {field.name: field.default for field in fields(self)}
        for name, kind in _OWN.items():
            if self.kind != kind and getattr(self, name) != usual[name]:
                raise UsageError(
                    f"--{name} is no option of the training {self.kind!r}", f"leave it out, or train {kind}"
                )

    def images(self) -> DemoSettings:
        """The same image set and classifier for the functions that take the demonstration's settings."""
        shared = {field.name for field in fields(DemoSettings)} & {field.name for field in fields(self)}
        given = {name: getattr(self, name) for name in shared}
        return DemoSettings(**{name: value for name, value in given.items() if value is not None})

    def as_json(self) -> dict[str, Any]:
        """The settings that play a part, as JSON holds them, without the place of the images."""
        foreign = {name for name, kind in _OWN.items() if kind != self.kind}
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["budget"] = budget_text(self.budget)
        return {name: value for name, value in values.items() if name not in {*foreign, "root"}}
