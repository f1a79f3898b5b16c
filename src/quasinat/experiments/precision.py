"""What a layer with narrow maps makes of a user's own images, against single precision: measured, not promised."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from quasinat.arrays import Image
from quasinat.experiments.transforms import NamedTransform

LOOKED_AT = 8  # images


def precision_error(transform: NamedTransform, images: Iterable[Image]) -> dict[str, Any] | None:
    """How far T(x) is from that of the layer in float32, on the first few images; `None` where it is that layer.

    The two stop at different distances from the optimum, which is part of it.

    Returns:
        `images`, how many; `largest` and `mean` difference of a pixel, which is in [0, 1].
    """
    if transform.exact is None:
        return None
    exact = replace(transform, module=transform.exact)
    differences = [
        (transform.project(image[None]) - exact.project(image[None])).abs().flatten()
        for image in islice(images, LOOKED_AT)
    ]
    if not differences:
        return None
    every = torch.cat(differences)
    return {"images": len(differences), "largest": float(every.max()), "mean": float(every.mean())}


def sentence(error: dict[str, Any]) -> str:
    """The same in a line."""
    return f"off by {error['largest']:.1e} at most, {error['mean']:.1e} on average (first {error['images']} images)"
