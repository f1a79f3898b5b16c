"""What an image is taken to be outside its frame: every choice becomes a circular problem on a larger image.

| boundary | outside the frame | larger by |
| --- | --- | --- |
| circular | the image again, wrapped around | nothing |
| zero | zero | S - 1 pixels, at the bottom and at the right |
| reflect | the image mirrored at its border pixels | S - 1 pixels on every side |

Within the frame no atom then comes in from the opposite side: `crop` of the larger image's synthesis is a linear
convolution in which every atom that touches the frame is there once. Under "zero" the atoms that reach over one side
share the S - 1 zeros with those that reach over the opposite one.
"""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Images
from quasinat.errors import UsageError, did_you_mean

Boundary = Literal["circular", "reflect", "zero"]


def margins(boundary: Boundary, size: int) -> tuple[int, int]:
    """Pixels added before and after the frame, on both axes, for filters of `size` S.

    Raises:
        UsageError: the boundary is not a known one.
    """
    known = {"circular": (0, 0), "reflect": (size - 1, size - 1), "zero": (0, size - 1)}
    if boundary not in known:
        raise UsageError(f"unknown boundary {boundary!r}", did_you_mean(str(boundary), list(get_args(Boundary))))
    return known[boundary]


def extend(images: Images, boundary: Boundary, size: int, outside: float = 0.0) -> Float[Tensor, "batch channels _ _"]:
    """Images `B C H W` continued beyond their frame as far as filters of `size` S reach; each side at least S.

    `outside` is what the boundary "zero" puts there: zero for images, one for a mask (the zeros count in full).
    """
    before, after = margins(boundary, size)
    if after == 0:
        return images
    pads = (before, after, before, after)
    return F.pad(images, pads, mode="reflect") if boundary == "reflect" else F.pad(images, pads, value=outside)


def crop(extended: Images, boundary: Boundary, size: int) -> Float[Tensor, "batch channels _ _"]:
    """The frame of extended images: `crop(extend(x)) == x`."""
    before, after = margins(boundary, size)
    height, width = extended.shape[-2:]
    return extended[..., before : height - after, before : width - after]
