"""ImageNet-10: ten coarse classes drawn from the full ImageNet, a folder tree with one folder for each WordNet id."""

import tomllib
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from quasinat.data.dataset import Dataset
from quasinat.data.draws import generator_for
from quasinat.data.folder import stack_images
from quasinat.data.image_files import SUFFIXES
from quasinat.data.image_tree import picture_size
from quasinat.errors import InputError, UsageError

TRAIN, TEST = 8000, 2000  # images of each class, the paper's section 5.1


@cache
def imagenet10_groups() -> dict[str, tuple[str, ...]]:
    """The WordNet ids of each of the ten classes."""
    return {name: tuple(ids) for name, ids in _read("imagenet10.toml").items()}


@cache
def wordnet_names() -> dict[str, str]:
    """The names of some WordNet ids."""
    return _read("wordnet_names.toml")


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files("quasinat.data") / name).read_text(encoding="utf-8"))


def imagenet10(
    root: str | Path, *, size: int = 64, train_each: int = TRAIN, test_each: int = TEST, seed: int = 0
) -> Dataset:
    """ImageNet-10 as float32 `N 3 size size` in [0, 1], from ImageNet's training images.

    The images of a class, of all its WordNet ids together, are put into a random order: those to train on are taken
    from its beginning, those to test on from its end. So a smaller request is part of a larger one, and what one trains
    on the other does not test on, as long as a class has enough images. Where it has too few, all that are there are
    shared in the same proportion. Each is scaled so that its short side has `size` pixels (Lanczos) and cropped in its
    centre. Images that are smaller are passed over, grey ones become RGB.

    Only what is asked for is decoded. An image fills `12 * size ** 2` bytes: all 100,000 fill 5 GB at 64 px and 20 GB
    at 128 px.

    Args:
        root: the folder of the folders of WordNet ids, or one that holds it as `train`.
        size: side of the images in pixels.
        train_each, test_each: images of each class.
        seed: of what is drawn; the images of a class do not depend on the others.

    Raises:
        UsageError: a size or a number of images below one.
        InputError: a folder of one of the ids is missing, or an image cannot be read, or a class has too few images.
    """
    for name, value in (("size", size), ("train_each", train_each), ("test_each", test_each)):
        if value < 1:
            raise UsageError(f"{name} is {value}", "give at least 1")
    root = Path(root)
    folder = root / "train" if (root / "train").is_dir() else root
    drawn = {
        name: _drawn(name, [folder / each for each in ids], size, train_each, test_each, seed)
        for name, ids in imagenet10_groups().items()
    }
    train, test = (stack_images([halves[part] for halves in drawn.values()], size, "rgb") for part in (0, 1))
    description = f"ImageNet-10: ten groups of ImageNet's classes, {size} px."
    return Dataset("imagenet10", *train, *test, tuple(drawn), description)


def _drawn(
    name: str, folders: list[Path], size: int, train: int, test: int, seed: int
) -> tuple[list[Path], list[Path]]:
    """The image files of a class, for training and for testing; what is large enough their headers say."""
    paths = [path for folder in folders for path in _image_files(folder)]
    order = torch.randperm(len(paths), generator=generator_for(seed, "imagenet10", name)).tolist()
    fits = cache(lambda index: min(picture_size(paths[index])) >= size)
    first = list(islice(filter(fits, order), train))
    last = list(islice(filter(fits, reversed(order)), test))
    if not first or not set(first).isdisjoint(last):
        every = list(filter(fits, order))
        kept = len(every) * train // (train + test)
        first, last = every[:kept], every[kept:]
    if not (first and last):
        count, where = len(first) + len(last), folders[0].parent
        problem = f"there are {count} images of {size} pixels of the class {name!r} below {where}"
        raise InputError(problem, "unpack all of ImageNet's training images, or choose a smaller size")
    return [paths[index] for index in first], [paths[index] for index in last]


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        remedy = "name the folder of ImageNet's training images, with a folder for each WordNet id"
        raise InputError(f"there is no folder {folder}", remedy)
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
