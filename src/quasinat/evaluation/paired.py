"""How much more one row gets right than another on the same images, with a 95 % interval."""

import math
from dataclasses import dataclass

from quasinat.arrays import PerImageBool
from quasinat.errors import UsageError
from quasinat.evaluation.accuracy import Z_95


@dataclass(frozen=True)
class Difference:
    """A difference of two accuracies.

    Attributes:
        value: in [-1, 1].
        n: number of images.
        low, high: the 95 % interval.
    """

    value: float
    n: int
    low: float
    high: float


def paired_difference(one: PerImageBool, other: PerImageBool) -> Difference:
    """The accuracy of `one` less that of `other`, both judged on the same images.

    Only the images that they differ on count, so that the interval is narrower than the two accuracies' own would make
    it: Wald's, with half an image added to each of the four cells (Agresti & Min 2005, section 2.1).

    Args:
        one, other: whether each image is right, in the same order.

    Raises:
        UsageError: they are not of equally many images, or of none.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import paired_difference
        >>> one, other = torch.ones(100, dtype=torch.bool), torch.arange(100) >= 10
        >>> difference = paired_difference(one, other)
        >>> difference.value, round(difference.low, 3), round(difference.high, 3)
        (0.1, 0.037, 0.159)
    """
    if one.shape != other.shape or len(one) == 0:
        problem = f"outcomes of {len(one)} and {len(other)} images"
        raise UsageError(problem, "give those of the same images, one at least")
    n = len(one)
    better, worse = int((one & ~other).sum()), int((other & ~one).sum())
    total, difference = n + 2, (better - worse) / (n + 2)
    half = Z_95 * math.sqrt(((better + worse + 1) / total - difference**2) / total)
    return Difference((better - worse) / n, n, max(-1.0, difference - half), min(1.0, difference + half))
