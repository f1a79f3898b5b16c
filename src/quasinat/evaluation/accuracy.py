"""Accuracy with the number of images and a 95 % Wilson interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from quasinat.arrays import Images, Labels, Logits, PerImageBool

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers.

    Attributes:
        value: in [0, 1].
        n: number of images.
        low, high: the 95 % Wilson score interval (Wilson 1927), which treats the images as independent draws.
    """

    value: float
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] (n = {self.n})"


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of `correct` out of `n`; (0, 1) when nothing was seen.

    Examples:
        >>> from quasinat.evaluation import wilson_interval
        >>> [round(end, 3) for end in wilson_interval(90, 100)]
        [0.826, 0.945]
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_of(outcomes: PerImageBool) -> Accuracy:
    """The accuracy of per-image outcomes, `True` where the answer was right.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import accuracy_of
        >>> print(accuracy_of(torch.tensor([True, True, True, False])))
        75.0 % [30.1, 95.4] (n = 4)
    """
    correct, n = int(outcomes.sum()), len(outcomes)
    low, high = wilson_interval(correct, n)
    return Accuracy(correct / n if n else math.nan, n, low, high)


@torch.no_grad()
def outcomes(
    model: Callable[[Images], Logits], images: Images, labels: Labels, *, batch_size: int = 128
) -> PerImageBool:
    """Whether `model`, images to logits, is right on each image `B C H W`.

    Args:
        model: images to logits; as it is, in training or in evaluation mode.
        images: `B C H W` in [0, 1].
        labels: `B`, from 0.
        batch_size: images at a time.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import outcomes
        >>> bright = lambda images: torch.stack([1 - images.mean((1, 2, 3)), images.mean((1, 2, 3))], 1)
        >>> outcomes(bright, torch.tensor([0.2, 0.9]).view(2, 1, 1, 1), torch.tensor([0, 0]))
        tensor([ True, False])
    """
    parts = [model(images[i : i + batch_size]).argmax(1) for i in range(0, len(images), batch_size)]
    return (torch.cat(parts) == labels) if parts else torch.zeros(0, dtype=torch.bool)


def accuracy(model: Callable[[Images], Logits], images: Images, labels: Labels) -> Accuracy:
    """The accuracy of `model` on images `B C H W` in [0, 1] with labels `B`."""
    return accuracy_of(outcomes(model, images, labels))
