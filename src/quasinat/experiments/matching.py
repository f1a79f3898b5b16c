"""Strength-matched attacks: the budget is lowered until the vanilla classifier scores what the paper prints.

The paper's attacks were weak: its undefended VGG keeps 58 % under FGSM-0.08, where a plain FGSM leaves a few per cent.
At equal budgets its defended cells cannot be compared with ours; at equal damage to the undefended network they can.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from quasinat.arrays import Images
from quasinat.errors import UsageError

TRIES = 16  # besides the whole budget; two of them at least halve the bracket
LEAST = 1e-3  # accuracy that is told from none where the curve is drawn


@dataclass(frozen=True, eq=False)
class Matched:
    """The images, the share of the stated budget that made them, and the accuracy that they leave."""

    images: Images
    share: float
    accuracy: float


def matching(
    at: Callable[[float], Images], accuracy: Callable[[Images], float], target: float, *, enough: float = 0.0
) -> Matched:
    """The attack at the share of its budget that leaves the undefended classifier closest to `target`.

    An attack that leaves more than that at its whole budget is taken as it is. Accuracy falls about exponentially with
    the budget, so the bracket of shares is cut where such a curve through its ends meets the target; in halves after
    a cut that left more than half of it.

    Args:
        at: the adversarial images at a share of the stated budget, 0 to 1; of 0 the clean images.
        accuracy: of the undefended classifier.
        target: the accuracy to come to, in [0, 1].
        enough: a difference from the target that ends the search.

    Raises:
        UsageError: the classifier gets fewer of the clean images right than the target.
    """

    def tried(share: float) -> Matched:
        images = at(share)
        return Matched(images, share, accuracy(images))

    low, high = tried(0.0), tried(1.0)
    if low.accuracy < target:
        problem = f"the undefended network has {low.accuracy:.1%} of the clean images right"
        raise UsageError(problem, f"no attack brings it to the {target:.1%} that the paper prints")
    if high.accuracy >= target:
        return high
    halve = False
    for _ in range(TRIES):
        width = high.share - low.share
        middle = tried(low.share + width * (0.5 if halve else _meeting(low, high, target)))
        low, high = (middle, high) if middle.accuracy >= target else (low, middle)
        halve = high.share - low.share > width / 2
        if abs(middle.accuracy - target) <= enough:
            return middle
    return min(low, high, key=lambda found: abs(found.accuracy - target))


def _meeting(low: Matched, high: Matched, target: float) -> float:
    """Where, from 0 at `low` to 1 at `high`, the exponential through both meets the target."""
    top, bottom, wanted = (math.log(max(each, LEAST)) for each in (low.accuracy, high.accuracy, target))
    return (top - wanted) / (top - bottom) if top > bottom else 0.5
