"""The bounds that images keep: so many pixels a side at least, and values in [0, 1]."""

from torch import Tensor

from quasinat.attacks.checks import check_images
from quasinat.errors import InputError


def check_input(images: Tensor, name: str, least_side: int) -> None:
    """What `Transformation.forward` asks of images, for the ways into a transformation that do not go through it.

    Raises:
        InputError: images that are not `B C H W`, finite and in [0, 1], or smaller than `least_side`.
    """
    check_images(images)
    if min(images.shape[2:]) < least_side:
        height, width = images.shape[2:]
        problem = f"images of {height} x {width} pixels are too small for {name}"
        raise InputError(problem, f"give at least {least_side} a side")


def in_range(averages: Tensor) -> Tensor:
    """Weighted averages of values in [0, 1], with what rounding has put outside brought back.

    In exact arithmetic this does nothing, so its derivative is the identity: that of a clamp would be zero wherever
    a white area's average is rounded up.
    """
    return averages + (averages.clamp(0, 1) - averages).detach()
