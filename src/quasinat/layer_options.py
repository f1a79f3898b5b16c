"""The layer's options by name, checked before anything long starts."""

import math
from typing import Any, Literal, get_args

from quasinat.errors import UsageError, did_you_mean
from quasinat.strata import Split

Normalise = Literal["clip", "max"]
RefineOver = Literal["image", "batch"]
Clipping = Literal["exact", "straight-through"]
MOST_REFINES = 1000  # filter updates that a file can ask for


def check_options(split: Split, normalise: Normalise, refine: int = 0, refine_over: RefineOver = "image") -> None:
    """Raises a `UsageError` where the layer has no such option; cheap, to be asked before a long learning."""
    for name, value, known in (
        ("split", split, get_args(Split)),
        ("normalise", normalise, get_args(Normalise)),
        ("refine_over", refine_over, get_args(RefineOver)),
    ):
        if value not in known:
            raise UsageError(f"unknown {name} {value!r}", did_you_mean(str(value), list(known)))
    if refine < 0:
        raise UsageError(f"refine={refine} filter updates", "ask for none or more")


def check_stored(sparsity: Any, refine: Any) -> None:
    """Raises a `ValueError` where what a file says is no lambda, or no sensible number of filter updates."""
    if type(sparsity) not in (int, float) or not 0 <= sparsity < math.inf:
        raise ValueError(f"lambda {sparsity!r}")
    if type(refine) is not int or not 0 <= refine <= MOST_REFINES:
        raise ValueError(f"refine {refine!r}")


def check_clipping(clipping: Clipping) -> None:
    """Raises a `UsageError` where there is no such derivative of the clip."""
    if clipping not in get_args(Clipping):
        raise UsageError(f"unknown clipping {clipping!r}", did_you_mean(str(clipping), list(get_args(Clipping))))
