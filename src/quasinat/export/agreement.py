"""How far one module is from another on the same images: what an exported file says of itself."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Images

Outputs = Float[Tensor, "batch ..."]


@dataclass(frozen=True)
class Agreement:
    """The largest and the mean absolute difference over all values of `images` images.

    `same_label` is the share of images whose largest value is in the same place; `None` where the values are images.
    """

    images: int
    largest: float
    mean: float
    same_label: float | None = None

    def as_json(self) -> dict[str, int | float | None]:
        """As JSON holds it."""
        return asdict(self)


def agreement(
    ours: Callable[[Images], Outputs], theirs: Callable[[Images], Outputs], images: Images, *, batch_size: int = 16
) -> Agreement:
    """How far `ours` is from `theirs`; both give images, or both give logits.

    Args:
        ours, theirs: of images `B C H W`.
        images: `N C H W`, in [0, 1].
        batch_size: images at a time.
    """
    with torch.no_grad():
        first, second = (torch.cat([module(part) for part in images.split(batch_size)]) for module in (ours, theirs))
    apart = (first - second).abs()
    labels = None
    if first.ndim == 2:
        labels = float((first.argmax(1) == second.argmax(1)).float().mean())
    return Agreement(len(images), float(apart.max()), float(apart.mean()), labels)
