"""The bank of natural patches that image quilting takes its patches from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.artefact import Card, check_tensors, read_artefact, write_artefact
from quasinat.attacks.checks import check_count, check_images
from quasinat.data.draws import generator_for
from quasinat.defences.patch_search import SLACKS, PatchTree, Places, Search, check_search
from quasinat.errors import InputError, UsageError
from quasinat.strata.autoencoder import positive

KIND = "patch bank"
MOST = 1_000_000  # patches, as in the source
_DRAWN_AT_ONCE = 2**16

Patches = Float[Tensor, "patches channels size size"]
Vectors = Float[Tensor, "patches values"]
Stored = Shaped[Tensor, "bank values"]


class PatchBank(nn.Module):
    """Patches of natural images, and the search among them.

    Args:
        patches: `N C*S*S`, one a row: uint8 levels k for k/255, or floating point in [0, 1].
        channels: C.

    `card` is what the file said that it was read from; empty for a new one.

    Raises:
        InputError: no patches, of another type, that do not fit their channels, or that leave [0, 1].
    """

    patches: Stored
    card: Card

    def __init__(self, patches: Stored, *, channels: int) -> None:
        super().__init__()
        check_count("channels", channels)
        count, values = patches.shape
        self.size = round((values / channels) ** 0.5)
        if count == 0 or self.size == 0 or channels * self.size**2 != values:
            problem = f"{count} rows of {values} values are no square patches of {channels} channels"
            raise InputError(problem, "give one patch a row")
        if patches.is_floating_point():
            if not bool(((patches >= 0) & (patches <= 1)).all()):
                raise InputError("the patches leave [0, 1] or hold NaN", "scale or clean them")
        elif patches.dtype != torch.uint8:
            raise InputError(f"the patches are {patches.dtype}", "give uint8, or floating point in [0, 1]")
        self.register_buffer("patches", patches)
        self.channels = channels
        self.card = {}
        self._search = _Kept()

    def __len__(self) -> int:
        return len(self.patches)

    def values(self, places: Int64[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "... channels size size"]:
        """The patches at places in the bank, in [0, 1]."""
        found = self.patches[places]
        found = found.to(dtype) / 255 if found.dtype == torch.uint8 else found.to(dtype)
        return found.unflatten(-1, (self.channels, self.size, self.size))

    @torch.no_grad()
    def nearest(self, patches: Vectors, *, neighbours: int = 1, search: Search = "exact") -> Places:
        """Places in the bank of the patches nearest in Euclidean distance, nearest first; ties go to the lowest place.

        Distances are taken between values rounded to 1/65,280, which leaves 8-bit values as they are, and are exact.

        Args:
            patches: `P C*S*S` in [0, 1], on the bank's device.
            neighbours: how many, at most `len(bank)`.
            search: "exact", or "fast", whose finds may be up to twice as far as the true neighbours, and seldom are.

        Raises:
            UsageError: more neighbours than patches, or an unknown search.
        """
        self.check_search(neighbours, search)
        return self._search.tree(self.patches, (self.channels, self.size, self.size)).nearest(
            patches, neighbours, SLACKS[search]
        )

    def check_search(self, neighbours: int, search: str) -> None:
        """Refuses what `nearest` cannot do."""
        check_count("neighbours", neighbours)
        check_search(search)
        if neighbours > len(self):
            raise UsageError(f"a bank of {len(self)} patches has no {neighbours} neighbours", "ask for fewer")


class _Kept:
    """The tree of a bank's patches, made when it is first asked for and kept until they are replaced or written to.

    Shallow copies of a bank share it; deep copies and pickles go without.
    """

    def __init__(self) -> None:
        self.made: tuple[Tensor, int, PatchTree] | None = None

    def tree(self, patches: Stored, shape: tuple[int, int, int]) -> PatchTree:
        version = 0 if patches.is_inference() else patches._version  # counts the writes in place
        if self.made is None or self.made[0] is not patches or self.made[1] != version:
            self.made = (patches, version, PatchTree(patches, shape))
        return self.made[2]

    def __deepcopy__(self, _: dict[int, Any]) -> "_Kept":
        return _Kept()

    def __reduce__(self) -> tuple[type["_Kept"], tuple[()]]:
        return _Kept, ()


def build_patch_bank(images: Images, *, count: int = 100_000, size: int = 5, seed: int = 0) -> PatchBank:
    """A bank of patches at random places of random images, all equally likely; patches drawn twice are kept once.

    Guo, Rana, Cisse & van der Maaten (2018), "Countering Adversarial Images using Input Transformations", section 4.3:
    a database of patches of clean images; theirs has 1,000,000 of 5 x 5 from ImageNet's training images.

    Patches of 8-bit images are stored as bytes.

    What differs from the source, and why: 100,000 patches by default, so that the file is small and the search quick.
    Equal patches are kept once, because the k nearest ones would otherwise be copies of one; the bank may hold fewer
    than `count` patches.

    Args:
        images: `B C H W` in [0, 1], training images only.
        count: patches that are drawn, at most 1,000,000.
        size: side of a patch, in pixels.
        seed: of the draw.

    Raises:
        UsageError: a count or size that is out of range.
        InputError: images that are not `B C H W` in [0, 1], none, or smaller than a patch.
    """
    check_images(images)
    check_count("count", count)
    check_count("size", size, least=2)
    if count > MOST:
        raise UsageError(f"a bank of {count} patches is too large", f"draw at most {MOST}")
    if len(images) == 0:
        raise InputError("there are no images to take patches from", "give training images")
    if min(images.shape[2:]) < size:
        height, width = images.shape[2:]
        raise InputError(f"images of {height} x {width} pixels hold no patch of {size}", "give larger images")
    generator = generator_for(seed, KIND)
    ends = (len(images), images.shape[2] - size + 1, images.shape[3] - size + 1)
    which, top, left = (torch.randint(end, (count,), generator=generator).to(images.device) for end in ends)
    windows = images.detach().unfold(2, size, 1).unfold(3, size, 1)
    parts = [
        windows[which[part], :, top[part], left[part]].flatten(1)
        for part in torch.arange(count, device=images.device).split(_DRAWN_AT_ONCE)
    ]
    levels = [(255 * part).round() for part in parts]
    if all(bool((level / 255 == part).all()) for level, part in zip(levels, parts, strict=True)):
        parts = [level.to(torch.uint8) for level in levels]
    return PatchBank(_distinct(torch.cat(parts)), channels=images.shape[1])


def _distinct(patches: Stored) -> Shaped[Tensor, "distinct values"]:
    """The first of each kind, in the order in which they came."""
    kinds, kind = patches.unique(dim=0, return_inverse=True)
    places = torch.arange(len(patches), device=patches.device)
    first = torch.full((len(kinds),), len(patches), device=patches.device).scatter_reduce(0, kind, places, "amin")
    return patches[first.sort().values]


def save_patch_bank(bank: PatchBank, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Writes an artefact of kind "patch bank", whole or not at all.

    Args:
        bank: of patches.
        path: of the file to write.
        provenance: how it was made (data, seed...), anything that JSON holds; `card["provenance"]` once loaded.
    """
    settings = {"count": len(bank), "channels": bank.channels, "size": bank.size}
    write_artefact(Path(path), KIND, bank.state_dict(), {"settings": settings, "provenance": dict(provenance)})


def load_patch_bank(path: str | Path) -> PatchBank:
    """Reads what `save_patch_bank` wrote; its `card` is the file's.

    Args:
        path: of the file.

    Raises:
        InputError: the file is missing, damaged, or holds no patch bank.
    """
    path = Path(path)
    tensors, card = read_artefact(path, KIND)
    settings = card.get("settings")
    channels, size = (positive(settings, name, path) for name in ("channels", "size"))
    count = settings.get("count") if isinstance(settings, dict) else None
    if type(count) is not int or count < 1:
        raise InputError(f"{path} has no usable setting 'count' ({count!r})", "learn it again")
    check_tensors(path, tensors, {"patches": (count, channels * size**2)})
    try:
        bank = PatchBank(tensors["patches"], channels=channels)
    except InputError as error:
        raise InputError(f"{path} holds no patches: {error.problem}", "learn it again") from None
    bank.card = card
    return bank
