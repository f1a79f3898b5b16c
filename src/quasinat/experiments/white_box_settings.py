"""The settings of a white-box evaluation and its presets."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from quasinat.attacks import Budget, Linf
from quasinat.attacks.budget_text import budget_from_text, budget_text
from quasinat.errors import UsageError, did_you_mean
from quasinat.layer_options import Clipping, check_clipping


@dataclass(frozen=True)
class WhiteBoxSettings:
    """Everything that decides the numbers but models and images.

    Attributes:
        images: how many test images, see `held_out`; the other counts are of the first ones of these.
        budgets: as text, see `budget_from_text`, kept as `budget_text` writes them; at least one is an L-infinity ball.
        attacks: the rows to run, of `ROWS`; empty for all. A check that misses one is not run.
        steps, restarts: of PGD and APGD.
        layer_steps: of the attacks aimed at the layer; routing takes as many for each of its climbs.
        unrolled, unrolled_images, unrolled_steps: iterations of the unrolled gradient, which is slow; PGD's images and
            steps with it.
        black_box_images, square_queries: of the attacks without gradients.
        check_images: of the checks that attack anew.
        gradient_images: whose derivatives are compared; each takes seconds.
        binarisation_images: of the test with planted adversarial examples.
        submissions, samples: of a randomised defence: how often an attacker may submit an image, and the random
            evaluations that a gradient is the mean of.
        clipping: the derivative of the layer's clip, see `SparseTransformationLayer.with_adjoint`.
        seed: of everything.

    Raises:
        UsageError: a value that is unknown or out of range.
    """

    images: int = 1000
    budgets: tuple[str, ...] = ("linf:2/255", "linf:4/255", "linf:8/255", "dissimilarity:0.03")
    attacks: tuple[str, ...] = ()
    steps: int = 40
    restarts: int = 1
    layer_steps: int = 20
    unrolled: int = 50
    unrolled_images: int = 100
    unrolled_steps: int = 10
    black_box_images: int = 200
    square_queries: int = 1000
    check_images: int = 100
    gradient_images: int = 4
    binarisation_images: int = 30
    submissions: int = 10
    samples: int = 10
    clipping: Clipping = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.type is int and field.name != "seed"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)} is below 1", "give 1 or more")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is below zero", "give 0 or more")
        check_clipping(self.clipping)
        object.__setattr__(self, "budgets", tuple(budget_text(budget_from_text(text)) for text in self.budgets))
        sizes = [budget.size for budget in self.balls().values()]
        if not all(0 < size < math.inf for size in sizes):
            raise UsageError("a budget of zero or infinity says nothing of robustness", "give finite ones above 0")
        if not self.linf():
            raise UsageError("no budget is an L-infinity ball", "give one too, such as linf:4/255")
        if len({(type(ball), ball.size) for ball in self.balls().values()}) < len(self.budgets):
            raise UsageError(f"a budget is given twice: {', '.join(self.budgets)}", "give each once")

    def balls(self) -> dict[str, Budget]:
        """The budgets by their text."""
        return {text: budget_from_text(text) for text in self.budgets}

    def linf(self) -> list[str]:
        """The L-infinity budgets, smallest first."""
        return sorted((text for text, ball in self.balls().items() if isinstance(ball, Linf)), key=self._size)

    def _size(self, text: str) -> float:
        return budget_from_text(text).size

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value


PRESETS: dict[str, WhiteBoxSettings] = {
    "smoke": WhiteBoxSettings(
        images=24,
        budgets=("linf:2/255", "linf:8/255"),
        steps=10,
        layer_steps=5,
        unrolled=20,
        unrolled_images=4,
        unrolled_steps=3,
        black_box_images=12,
        square_queries=50,
        check_images=12,
        gradient_images=1,
        binarisation_images=4,
    ),
    "small": WhiteBoxSettings(
        images=200, unrolled_images=40, black_box_images=100, square_queries=500, check_images=50, gradient_images=2
    ),
    "full": WhiteBoxSettings(),
}


def white_box_settings(preset: str = "small", **changes: Any) -> WhiteBoxSettings:
    """A preset with some settings changed; changes that are `None` are left out.

    Raises:
        UsageError: an unknown preset, or a value out of range.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}", did_you_mean(preset, list(PRESETS)))
    return replace(PRESETS[preset], **{name: value for name, value in changes.items() if value is not None})
