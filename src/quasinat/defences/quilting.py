"""Image quilting: every patch is replaced by the nearest natural one, joined along the least visible boundaries."""

import itertools
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Images
from quasinat.attacks.checks import check_count
from quasinat.defences.boundary_cut import takes_new
from quasinat.defences.draws import Seed, drawn
from quasinat.defences.patch_bank import PatchBank
from quasinat.defences.patch_search import Search, on_grid
from quasinat.defences.transformation import Transformation
from quasinat.errors import InputError, UsageError

_PATCHES_AT_ONCE = 2**16

Grid = Float[Tensor, "batch rows columns channels size size"]


@torch.no_grad()
def quilt(
    images: Images,
    bank: PatchBank,
    *,
    overlap: int = 2,
    neighbours: int = 1,
    search: Search = "exact",
    seed: Seed = 0,
) -> Images:
    """The image put together from patches of a bank.

    Guo, Rana, Cisse & van der Maaten (2018), "Countering Adversarial Images using Input Transformations", section 4.3.
    The image is looked at through windows of the bank's patch size, 5 x 5 in the source, which overlap by 2 pixels.
    Each is replaced by the nearest patch of the bank (by one of the `neighbours` nearest, all equally likely), and the
    patches are laid down row by row, each joined to those before it along the minimum-error boundary (`takes_new`).
    The result consists of the bank's pixels only.

    The last row and column of windows are placed flush with the border, so that every pixel is covered; their overlap
    is larger where the size is no multiple of the stride.

    The search and the boundaries use whole numbers, so a result depends on neither the batch, the threads nor the
    device.

    What differs from the source, and why: its windows leave a margin of some pixels as it was, here all are covered.
    Its code finds the boundary by a minimum graph cut over absolute differences; this is Efros & Freeman's own dynamic
    program over squared ones. Its code searches among 64 principal components of the patches; this, among the patches.

    Args:
        images: `B C H W` in [0, 1]; at least as large as a patch.
        bank: of patches with as many channels, on the images' device.
        overlap: of neighbouring windows, in pixels; from 1 to the patch size less 1.
        neighbours: k, at most `len(bank)`; 1 is the default of the source's code.
        search: "exact", or "fast", see `PatchBank.nearest`.
        seed: of the draw among several neighbours; see `draws.Seed`.

    Raises:
        UsageError: an option that is out of range.
        InputError: images of other channels than the bank's, smaller than a patch, or on another device.
    """
    _check(bank, overlap, neighbours, search)
    channels, height, width = images.shape[1:]
    if channels != bank.channels:
        raise InputError(f"the images have {channels} channels, the bank's patches {bank.channels}", "use another bank")
    if min(height, width) < bank.size:
        raise InputError(f"images of {height} x {width} pixels hold no patch of {bank.size}", "give larger images")
    if images.device != bank.patches.device:
        problem = f"the images are on {images.device}, the bank is on {bank.patches.device}"
        raise InputError(problem, "move them to one device")
    tops, lefts = (_starts(side, bank.size, bank.size - overlap) for side in (height, width))
    ranks = torch.zeros(len(images), len(tops), len(lefts), dtype=torch.int64, device=images.device)
    if neighbours > 1:
        ranks = drawn(
            images, seed, "quilting", lambda one: torch.randint(neighbours, tuple(ranks.shape[1:]), generator=one)
        )
    at_once = max(_PATCHES_AT_ONCE // (len(tops) * len(lefts)), 1)
    parts = []
    for some, rank in zip(images.split(at_once), ranks.split(at_once), strict=True):
        windows = some.unfold(2, bank.size, 1)[:, :, tops].unfold(3, bank.size, 1)[:, :, :, lefts]
        sought = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, bank.patches.shape[1])
        places = bank.nearest(sought, neighbours=neighbours, search=search)
        places = places.gather(1, rank.reshape(-1, 1)).reshape(rank.shape)
        parts.append(_joined(bank.values(places, images.dtype), tops, lefts))
    return torch.cat(parts).reshape(images.shape)


class Quilting(Transformation):
    """`quilt` as a module.

    Args:
        bank: its patches are part of the module's state.
        overlap, neighbours, search, seed: see `quilt`.
    """

    differentiable: ClassVar[bool] = False

    def __init__(
        self,
        bank: PatchBank,
        *,
        overlap: int = 2,
        neighbours: int = 1,
        search: Search = "exact",
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        _check(bank, overlap, neighbours, search)
        self.bank = bank
        self.overlap = overlap
        self.neighbours = neighbours
        self.search: Search = search
        self.seed = seed

    def transform(self, images: Images) -> Images:
        """The quilted images."""
        return quilt(
            images,
            self.bank,
            overlap=self.overlap,
            neighbours=self.neighbours,
            search=self.search,
            seed=self.seed,
        )


def _check(bank: PatchBank, overlap: int, neighbours: int, search: str) -> None:
    check_count("overlap", overlap)
    if overlap >= bank.size:
        raise UsageError(f"overlap is {overlap} for patches of {bank.size}", "give at most the size less 1")
    bank.check_search(neighbours, search)


def _starts(side: int, size: int, stride: int) -> list[int]:
    """Where windows start along a side: every `stride` pixels, and flush with its end."""
    starts = list(range(0, side - size + 1, stride))
    return starts if starts[-1] == side - size else [*starts, side - size]


def _shared(starts: list[int], size: int) -> list[int]:
    """How many pixels each window shares with the one before it."""
    return [0, *(before + size - start for before, start in itertools.pairwise(starts))]


def _joined(patches: Grid, tops: list[int], lefts: list[int]) -> Images:
    """The image that patches make at their windows, laid down in raster order.

    A patch needs those before it that it overlaps: to its left, and in the rows above as far as `ahead - 1` columns to
    the right. So all patches of one `column + ahead * row` can be laid down at once.
    """
    size, device = patches.shape[-1], patches.device
    canvas = patches.new_zeros(len(patches), patches.shape[3], tops[-1] + size, lefts[-1] + size)
    start_down, start_right, shared_top, shared_left = (
        torch.tensor(each, device=device) for each in (tops, lefts, _shared(tops, size), _shared(lefts, size))
    )
    ahead = 1 + max(sum(left < other < left + size for other in lefts) for left in lefts)
    rows, columns = torch.arange(len(tops))[:, None], torch.arange(len(lefts))
    fronts = (columns + ahead * rows).flatten()
    order = fronts.sort(stable=True).indices.to(device)
    steps = torch.arange(size, device=device)
    for front in order.split(fronts.unique(return_counts=True)[1].tolist()):
        row, column = front // len(lefts), front % len(lefts)
        down = (start_down[row][:, None] + steps)[:, :, None]
        right = (start_right[column][:, None] + steps)[:, None]
        new, old = patches[:, row, column].transpose(1, 2), canvas[:, :, down, right]
        errors = (on_grid(new) - on_grid(old)).square().sum(1).long()
        left, top = (shared.expand(len(patches), -1).flatten() for shared in (shared_left[column], shared_top[row]))
        kept = takes_new(errors.flatten(0, 1), left, top).unflatten(0, errors.shape[:2])
        canvas[:, :, down, right] = torch.where(kept[:, None], new, old)
    return canvas
