"""A dictionary of natural patches: patches of training images, no two of them alike, that D3 combines."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.artefact import Card, check_tensors, read_artefact, write_artefact
from quasinat.attacks.checks import check_count, check_images
from quasinat.data.draws import generator_for
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.strata.autoencoder import positive

KIND = "patch dictionary"
Select = Literal["greedy", "random"]
SELECTIONS = ("greedy", "random")
Patches = Float[Tensor, "patches channels side side"]
Means = Float[Tensor, "patches channels 1 1"]
Vectors = Float[Tensor, "vectors values"]

FLAT = 0.01
"""Patches of a smaller root mean square hold rounding rather than structure and are no candidates."""

_BLOCK = 2048  # candidates that are compared with the dictionary at once
_SIMILARITIES_AT_ONCE = 2**24


class PatchDictionary(nn.Module):
    """Natural patches as atoms `K C P P` of unit norm.

    Args:
        atoms: the patches, scaled; without their means if `centred`.
        centred: whether each patch's mean was taken away, channel by channel.

    `card` is what the file said that it was read from; empty for a new one.
    """

    atoms: Patches
    card: Card

    def __init__(self, atoms: Patches, *, centred: bool) -> None:
        super().__init__()
        self.register_buffer("atoms", atoms)
        self.centred = centred
        self.card = {}

    @property
    def channels(self) -> int:
        """Of the images that it can be used on."""
        return self.atoms.shape[1]

    @property
    def patch(self) -> int:
        """The side of a patch, in pixels."""
        return self.atoms.shape[2]

    def __len__(self) -> int:
        return len(self.atoms)


def learn_patch_dictionary(
    images: Images,
    *,
    size: int = 10_000,
    patch: int = 8,
    select: Select = "greedy",
    least_distance: float = 0.2,
    centred: bool = False,
    most_candidates: int = 2_000_000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> PatchDictionary:
    """Chooses patches of the images as the dictionary of D3 (Moosavi-Dezfooli, Shrivastava & Tuzel 2018).

    Candidates are drawn at random: an image, then a place in it, all equally likely; those that hold nothing (`FLAT`)
    are passed over. "greedy" takes a candidate if no patch taken before is nearer than `least_distance`, so that the
    dictionary is diverse. "random" takes every candidate.

    The distance of two patches is that of their atoms a and b, min(|a - b|, |a + b|): from 0, for patches that are
    multiples of each other and thus the same to a sparse combination, to sqrt(2), for orthogonal ones.

    What differs from the source, and why: its code is not public. The sizes (10,000 and 40,000) are the source's, and
    so is the aim, a diverse dictionary; the rule above, its threshold (an angle of 11 degrees) and the patch size are
    this package's choices. By default a patch keeps its mean: it is then a combination of natural patches and of
    nothing else. Without the mean, which D3 then adds again unchanged, each patch has as many free numbers more as it
    has channels: the result is nearer to the image, and to what an attack has done to it.

    Args:
        select: "greedy" or "random", see above.
        images: `B C H W` in [0, 1], training images only.
        size: patches in the dictionary.
        patch: side, in pixels.
        least_distance: from 0 to below sqrt(2); see above. Only for "greedy".
        centred: take away each patch's mean, channel by channel, here and in D3; see above. Patches are further apart
            then: 0.5 is a threshold that is reached.
        most_candidates: after which the search is given up.
        seed: of the draw of candidates.
        on_progress: called with the patches found so far and those wanted.

    Raises:
        UsageError: an option that makes no sense, or fewer different patches than wanted among the candidates.
        InputError: images that are not `B C H W` in [0, 1], none, or smaller than a patch.
    """
    _check(images, size, patch, select, least_distance, most_candidates)
    draw = generator_for(seed, KIND)
    chosen = images.new_empty(size, images.shape[1] * patch**2)
    found = candidates = 0
    while found < size and candidates < most_candidates:
        block = _atoms(_drawn(images, patch, _BLOCK, draw), centred)
        candidates += _BLOCK
        if select == "greedy":
            block = _different(block, chosen[:found], least_distance)
        block = block[: size - found]
        chosen[found : found + len(block)] = block
        found += len(block)
        if on_progress is not None:
            on_progress(found, size)
    if found < size:
        problem = f"only {found} of {candidates} candidates were different enough for a dictionary of {size} patches"
        raise UsageError(problem, "lower least_distance or size, or give more images")
    atoms = chosen.reshape(size, images.shape[1], patch, patch)
    return PatchDictionary(atoms, centred=centred)


def _check(images: Tensor, size: int, patch: int, select: str, least_distance: float, most_candidates: int) -> None:
    check_images(images)
    check_count("the dictionary's size", size)
    check_count("the patch size", patch, least=2)
    check_count("most_candidates", most_candidates)
    if select not in SELECTIONS:
        raise UsageError(f"there is no selection {select!r}", did_you_mean(select, list(SELECTIONS)))
    if not 0 <= least_distance < 2**0.5:
        raise UsageError(f"least_distance is {least_distance}", "give a number from 0 to below 1.414")
    if len(images) == 0:
        raise InputError("there are no images to take patches from", "give training images")
    if min(images.shape[2:]) < patch:
        height, width = images.shape[2:]
        raise InputError(f"images of {height} x {width} pixels hold no patch of {patch}", "give larger images")


def _drawn(images: Images, patch: int, count: int, generator: torch.Generator) -> Patches:
    """Patches of random images at random places."""
    limits = [len(images), images.shape[2] - patch + 1, images.shape[3] - patch + 1]
    which, top, left = (torch.randint(limit, (count,), generator=generator).to(images.device) for limit in limits)
    steps = torch.arange(patch, device=images.device)
    rows = (top[:, None] + steps)[:, :, None]
    columns = (left[:, None] + steps)[:, None]
    return images[which[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def without_mean(patches: Patches) -> tuple[Patches, Means]:
    """The patches less their means, and the means, channel by channel."""
    means = patches.mean((2, 3), keepdim=True)
    return patches - means, means


def _atoms(patches: Patches, centred: bool) -> Vectors:
    """The patches that are neither black nor, once centred, flat, as vectors of unit norm."""
    vectors = (without_mean(patches)[0] if centred else patches).flatten(1)
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    kept = norms[:, 0] >= FLAT * vectors.shape[1] ** 0.5
    return vectors[kept] / norms[kept]


def _different(
    block: Vectors, chosen: Float[Tensor, "chosen values"], least_distance: float
) -> Float[Tensor, "taken values"]:
    """Those of a block that are far enough from what is chosen and from those before them that are."""
    most = 1 - least_distance**2 / 2  # |a - b|^2 = 2 - 2 a . b
    rows = max(_SIMILARITIES_AT_ONCE // max(len(block), 1), 1)
    nearest = block.new_zeros(len(block))
    for part in chosen.split(rows) if len(chosen) else ():
        nearest = torch.maximum(nearest, (block @ part.T).abs_().amax(1))
    block = block[nearest <= most]
    alike = ((block @ block.T).abs() > most).cpu()
    taken = torch.zeros(len(block), dtype=torch.bool)
    for index in range(len(block)):
        taken[index] = not bool((alike[index, :index] & taken[:index]).any())
    return block[taken.to(block.device)]


def save_patch_dictionary(dictionary: PatchDictionary, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Writes an artefact of kind "patch dictionary", whole or not at all.

    Args:
        dictionary: of patches.
        path: of the file to write.
        provenance: how it was made (data, seed, options...), anything that JSON holds; `card["provenance"]` once
            loaded.
    """
    settings = {"size": len(dictionary), "channels": dictionary.channels, "patch": dictionary.patch}
    card = {"settings": {**settings, "centred": dictionary.centred}, "provenance": dict(provenance)}
    write_artefact(Path(path), KIND, {"atoms": dictionary.atoms}, card)


def load_patch_dictionary(path: str | Path) -> PatchDictionary:
    """Reads what `save_patch_dictionary` wrote; its `card` is the file's.

    Args:
        path: of the file.

    Raises:
        InputError: the file is missing, damaged, or holds no patch dictionary.
    """
    path = Path(path)
    tensors, card = read_artefact(path, KIND)
    settings = card.get("settings")
    size, channels, patch = (positive(settings, name, path) for name in ("size", "channels", "patch"))
    check_tensors(path, tensors, {"atoms": (size, channels, patch, patch)})
    centred, atoms = settings.get("centred") if isinstance(settings, dict) else None, tensors["atoms"]
    if not isinstance(centred, bool):
        raise InputError(f"{path} has no usable setting 'centred' ({centred!r})", "learn it again")
    unit = atoms.is_floating_point() and torch.linalg.vector_norm(atoms.flatten(1).double(), dim=1).sub(1).abs() < 1e-4
    if not torch.as_tensor(unit).all():
        raise InputError(f"{path} holds atoms that are not of unit norm", "learn it again")
    dictionary = PatchDictionary(atoms, centred=centred)
    dictionary.card = card
    return dictionary
