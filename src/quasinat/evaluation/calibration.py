"""Whether a classifier's confidence is its accuracy."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import PerImage, PerImageBool
from quasinat.errors import InputError, UsageError

BINS = 15


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far confidence and accuracy are apart, and where.

    Attributes:
        error: the expected calibration error, in [0, 1].
        confidence, accuracy: of the images in each bin, from 0 to 1; not a number where there is none.
        count: images in each bin.
    """

    error: float
    confidence: Float[Tensor, "bins"]
    accuracy: Float[Tensor, "bins"]
    count: Float[Tensor, "bins"]


def calibration(confidence: PerImage, right: PerImageBool, *, bins: int = BINS) -> Calibration:
    """The expected calibration error: |accuracy - confidence| of each bin of confidence, weighted by its images.

    Guo, Pleiss, Sun & Weinberger 2017, "On Calibration of Modern Neural Networks", section 2, with bins of equal width.

    Args:
        confidence: the probability that the classifier gives its answer, in [0, 1].
        right: whether that answer is right.
        bins: how many.

    Raises:
        UsageError: fewer than one bin.
        InputError: a confidence that is no probability.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import calibration
        >>> round(calibration(torch.full((4,), 0.9), torch.tensor([True, True, False, False])).error, 3)
        0.4
    """
    if bins < 1:
        raise UsageError(f"there are {bins} bins", "give at least 1")
    given = confidence.double().cpu()
    if not bool(((given >= 0) & (given <= 1)).all()):
        raise InputError("a confidence is outside [0, 1]", "pass probabilities, such as logits.softmax(1).amax(1)")
    index = (given * bins).ceil().long().clamp(1, bins) - 1  # a bin holds its upper edge, as in the source

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(bins, dtype=torch.float64).index_add_(0, index, values)

    count = summed(torch.ones_like(given))
    of_confidence, of_accuracy = summed(given) / count, summed(right.double().cpu()) / count
    apart = (of_confidence - of_accuracy).abs().nan_to_num(0)
    return Calibration(float((count * apart).sum() / max(1, len(given))), of_confidence, of_accuracy, count)
