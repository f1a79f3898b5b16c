"""The built-in data set: patches of the ten photographs, the photograph being the class."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from quasinat.arrays import Image
from quasinat.data.dataset import Dataset
from quasinat.data.draws import generator_for
from quasinat.data.photographs import PHOTOGRAPHS, photograph, standardise
from quasinat.errors import UsageError

SIZES = (32, 48, 64)
TRAIN_SHARE, TEST_SHARE = 0.65, 0.30  # of the width, from the left and from the right; the rest is a gap
FLAT = 0.02  # patches whose grey levels deviate less than this are left out

_DESCRIPTION = (
    "A place to try things without a download, not a benchmark: overlapping patches of ten photographs, "
    "so intervals understate the real uncertainty."
)


def photographs(
    size: int = 32, colour: bool = False, train_per_class: int = 400, test_per_class: int = 100, seed: int = 0
) -> Dataset:
    """Patches of the ten built-in photographs; the class of a patch is its photograph.

    This is a place to try things without a download. It is not a benchmark: the patches overlap and come from ten
    photographs only, so confidence intervals over them understate the real uncertainty.

    Each photograph is scaled to a short side of 256 pixels. Training patches come from the left 65 % of its width, test
    patches from the right 30 %: no pixel is shared. Nearly flat patches are left out. A class's patches depend on
    `seed` and its own photograph alone. Patch `i` has class `i % 10`, so that any leading part is balanced as well.

    Args:
        size: side of a patch: 32, 48 or 64 pixels.
        colour: keep colour, brightness and contrast (`3 H W`). By default a patch is grey (`1 H W`) and `standardise`d
            to mean 0.5 and deviation 0.2, so that texture and shape decide.
        train_per_class, test_per_class: patches of each photograph, no two of them at the same place.
        seed: of the draw of places.

    Raises:
        UsageError: another size, a count below one, or more patches than a photograph holds.
        InputError: an installed package that lacks one of the photographs.
    """
    if size not in SIZES:
        raise UsageError(f"there are no patches of {size} pixels", "choose a size of 32, 48 or 64")
    if min(train_per_class, test_per_class) < 1:
        counts = f"{train_per_class} training and {test_per_class} test"
        raise UsageError(f"{counts} patches per class were asked for", "ask for at least one of each")
    train, test = [], []
    for name in PHOTOGRAPHS:
        grey = photograph(name)
        source = photograph(name, colour=True) if colour else grey
        left, right = split_columns(grey.shape[-1])
        train.append(cut(source, _draw(grey, size, left, train_per_class, seed, name, "train"), size))
        test.append(cut(source, _draw(grey, size, right, test_per_class, seed, name, "test"), size))
    train_images, test_images = _interleave(train), _interleave(test)
    return Dataset(
        name="photographs",
        train_images=train_images if colour else standardise(train_images),
        train_labels=torch.arange(len(PHOTOGRAPHS)).repeat(train_per_class),
        test_images=test_images if colour else standardise(test_images),
        test_labels=torch.arange(len(PHOTOGRAPHS)).repeat(test_per_class),
        classes=PHOTOGRAPHS,
        description=_DESCRIPTION,
    )


def split_columns(width: int) -> tuple[range, range]:
    """The columns of a photograph for training and those for testing; they share none."""
    return range(int(TRAIN_SHARE * width)), range(width - int(TEST_SHARE * width), width)


def textured_corners(grey: Image, size: int, columns: range) -> Int64[Tensor, "places 2"]:
    """Every (top, left) of a `size` x `size` patch inside `columns` whose grey levels deviate by `FLAT` or more."""
    part = grey[:, :, columns.start : columns.stop].double()
    if min(part.shape[1:]) < size:
        return torch.empty(0, 2, dtype=torch.int64)
    variance = _window_mean(part.square(), size) - _window_mean(part, size).square()
    return (variance[0] >= FLAT**2).nonzero() + torch.tensor([0, columns.start])


def _window_mean(image: Image, size: int) -> Float[Tensor, "channels rows columns"]:
    return F.avg_pool2d(F.avg_pool2d(image, (size, 1), 1), (1, size), 1)


def _draw(grey: Image, size: int, columns: range, count: int, seed: int, name: str, split: str) -> Tensor:
    places = textured_corners(grey, size, columns)
    if len(places) < count:
        problem = f"the {split} part of photograph {name!r} holds {len(places)} textured patches of {size} pixels"
        raise UsageError(f"{problem}, not {count}", f"ask for at most {len(places)} per class, or for smaller patches")
    order = torch.randperm(len(places), generator=generator_for(seed, name, split))
    return places[order[:count]]


def cut(image: Image, corners: Int64[Tensor, "places 2"], size: int) -> Float[Tensor, "places channels {size} {size}"]:
    """The `size` x `size` patches of an image at the given (top, left) corners."""
    return torch.stack([image[:, top : top + size, left : left + size] for top, left in corners.tolist()])


def _interleave(per_class: list[Tensor]) -> Tensor:
    """Patch 0 of every class, then patch 1 of every class, and so on."""
    return torch.stack(per_class, dim=1).flatten(0, 1)
