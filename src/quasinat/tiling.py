"""T(x) of images too large to be coded at once: tile by tile, each with a margin of what lies around it.

A code depends on the pixels near it and hardly on those far away: it forgets what is eight filters off.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from quasinat.arrays import Images
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import SparseCodingProblem, solve
from quasinat.strata import split_bands

TILE = 512  # pixels
MARGIN = 8  # in filters
LARGE = 2**21  # pixels of an image from which its codes fill gigabytes
TOGETHER = 2**20  # pixels of the tiles, margins included, that are coded at once; a larger tile goes alone


@torch.no_grad()
def project_large(layer: SparseTransformationLayer, images: Images) -> Images:
    """T(x); in tiles where the images are `LARGE` and the layer needs them whole for their stratum alone."""
    if images.shape[-2] * images.shape[-1] < LARGE or not in_tiles(layer):
        made: Images = layer(images)
        return made
    return project_in_tiles(layer, images)


def in_tiles(layer: SparseTransformationLayer) -> bool:
    """Whether a layer's T(x) can be made in tiles: it does not refine its filters or divide by the largest value."""
    return layer.refine == 0 and layer.normalise == "clip"


@torch.no_grad()
def project_in_tiles(
    layer: SparseTransformationLayer, images: Images, *, tile: int = TILE, margin: int | None = None
) -> Images:
    """T(x) as `layer.project` gives it, up to an error at the seams that falls with the margin.

    The stratum is the whole image's, and so is the split into bands. The coded band of a tile is coded in a window that
    reaches `margin` pixels beyond it on every side, around the frame as that of the whole image is (its boundary is
    circular). With the default margin no pixel differs by as much as 1e-3 on account of the seams; what the tolerance
    of the layer's solver allows comes on top, as it does between any two solutions. The memory that coding takes is
    that of the tiles that are coded together.

    Args:
        images: `B C H W` in [0, 1].
        tile: the side of a tile, in pixels.
        margin: in pixels; by default eight times the filters' side.

    Raises:
        UsageError: a tile or margin that is not positive, or a layer whose T(x) needs the whole image for more than its
            stratum: one that refines its filters, or divides by the largest value.
    """
    margin = MARGIN * layer.filters.shape[-1] if margin is None else margin
    for name, value in (("tile", tile), ("margin", margin)):
        if value < 1:
            raise UsageError(f"{name} is {value}", "give a number of pixels above 0")
    if not in_tiles(layer):
        raise UsageError(
            "a layer with refine or normalise='max' needs the whole image at once",
            "give smaller images, or a layer without them",
        )
    layer.check(images)
    made = torch.empty_like(images)
    height, width = images.shape[2:]
    for which, stratum in enumerate(layer.stratum(images).tolist()):
        passed, (coded,) = split_bands(images[which : which + 1], layer.split)
        windows = [(rows, columns) for rows in spans(height, tile, margin) for columns in spans(width, tile, margin)]
        together = max(1, TOGETHER // (min(height, tile + 2 * margin) * min(width, tile + 2 * margin)))
        for start in range(0, len(windows), together):
            group = windows[start : start + together]
            seen = torch.stack([coded[:, rows.seen][:, :, columns.seen] for rows, columns in group])
            problem = SparseCodingProblem(seen, layer.filters[stratum], layer.sparsity)
            parts = solve(problem, layer.solver, codes="sparse").reconstruction
            for (rows, columns), part in zip(group, parts, strict=True):
                made[which, :, rows.own, columns.own] = part[:, rows.inner, columns.inner]
        made[which] += passed[0]
    return made.clamp_(0, 1)


class Span:
    """One side of a tile: the pixels `own` that it makes, those that it sees, and where its own are among those."""

    def __init__(self, start: int, stop: int, first: int, seen: Tensor) -> None:
        self.own = slice(start, stop)
        self.inner = slice(start - first, stop - first)
        self.seen = seen


def spans(length: int, tile: int, margin: int) -> Iterator[Span]:
    """The sides of the tiles along an axis of `length` pixels; all of them see as many, all if that is not more.

    The last tile ends at the border, where it may overlap the one before it.

    Args:
        length: of the axis, in pixels.
        tile: its side, in pixels.
        margin: pixels seen beyond a tile on either side.

    Examples:
        >>> from quasinat.tiling import spans
        >>> [(span.own.start, span.own.stop, len(span.seen)) for span in spans(100, 40, 10)]
        [(0, 40, 60), (40, 80, 60), (60, 100, 60)]
    """
    if tile + 2 * margin >= length:
        yield Span(0, length, 0, torch.arange(length))
        return
    for start in [*range(0, length - tile, tile), length - tile]:
        first = start - margin
        yield Span(start, start + tile, first, torch.arange(first, first + tile + 2 * margin) % length)
