"""A learned dictionary and how it starts."""

from dataclasses import dataclass, field

import torch

from quasinat.arrays import Filters, Images
from quasinat.errors import InputError
from quasinat.sparse_coding.proximal import Constraint, project_unit_norm


@dataclass(frozen=True)
class Dictionary:
    """The filters of one quasi-natural space.

    Attributes:
        filters: f_{k,c}, `K C S S`.
        constraint: what has unit norm: each channel of each filter (Eq. 2) or each filter over its channels.
        sparsity: the lambda it was learned with.
        curve: mean objective per image after every outer iteration of the learning, first the initial filters'.
        images: how many images it was learned from.
    """

    filters: Filters
    constraint: Constraint
    sparsity: float
    curve: tuple[float, ...] = field(default=())
    images: int = 0


def patches_as_filters(
    images: Images, *, filters: int, size: int, constraint: Constraint, generator: torch.Generator
) -> Filters:
    """The start of dictionary learning: random patches of the images at unit norm, `K C S S`.

    Of four drawn for each one kept the most energetic survive, so that no filter starts flat.

    Raises:
        InputError: the images are all flat, or smaller than the filters.
    """
    batch, _, height, width = images.shape
    if batch == 0:
        raise InputError("there are no images to learn a dictionary from", "give at least one")
    if min(height, width) < size:
        raise InputError(
            f"images of {height} x {width} pixels are smaller than the filters ({size} x {size})",
            "use larger images or smaller filters",
        )
    draw = 4 * filters
    which = torch.randint(batch, (draw,), generator=generator)
    top = torch.randint(height - size + 1, (draw,), generator=generator)
    left = torch.randint(width - size + 1, (draw,), generator=generator)
    patches = torch.stack([images[i, :, t : t + size, s : s + size] for i, t, s in zip(which, top, left, strict=True)])
    energy = patches.square().flatten(1).sum(1)
    if not bool((energy > 0).any()):
        raise InputError("the images are flat: there is nothing to learn a dictionary from", "use textured images")
    strongest = energy.argsort(descending=True)[:filters]
    noise = torch.randn(strongest.shape[0], *patches.shape[1:], generator=generator).to(patches)
    # A little noise keeps two equal patches from staying equal for ever.
    return project_unit_norm(patches[strongest] + 1e-3 * energy[strongest[0]].sqrt() * noise, constraint)
