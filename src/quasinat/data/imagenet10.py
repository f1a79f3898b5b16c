"""ImageNet-10: ten coarse classes drawn from the full ImageNet, a folder tree with one folder for each WordNet id."""

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.data.dataset import Dataset
from quasinat.data.draws import generator_for
from quasinat.data.image_files import SUFFIXES, crop_centre, in_mode, pixels, read_picture, scale_short_side
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

    Of each class images are drawn from all its WordNet ids together, first those to train on, then those to test on;
    as many as are there, in the same proportion, where there are too few. Each is scaled so that its short side has
    `size` pixels (Lanczos) and cropped in its centre. Images that are smaller are passed over, grey ones become RGB.

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
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, ids in imagenet10_groups().items():
        train, test = _drawn(name, [folder / each for each in ids], size, train_each, test_each, seed)
        halves[0].append(train)
        halves[1].append(test)
    images, labels = zip(*(_labelled(half) for half in halves), strict=True)
    classes = tuple(imagenet10_groups())
    description = f"ImageNet-10: ten groups of ImageNet's classes, {size} px."
    return Dataset("imagenet10", images[0], labels[0], images[1], labels[1], classes, description)


def _drawn(name: str, folders: list[Path], size: int, train: int, test: int, seed: int) -> tuple[Tensor, Tensor]:
    """The 8-bit images of a class, for training and for testing."""
    paths = [path for folder in folders for path in _image_files(folder)]
    order = torch.randperm(len(paths), generator=generator_for(seed, "imagenet10", name)).tolist()
    found = []
    for image in _readable((paths[index] for index in order), size):
        found.append(image)
        if len(found) == train + test:
            break
    kept = len(found) * train // (train + test)
    if not 0 < kept < len(found):
        problem = f"there are {len(found)} images of {size} pixels of the class {name!r} below {folders[0].parent}"
        raise InputError(problem, "unpack all of ImageNet's training images, or choose a smaller size")
    return torch.stack(found[:kept]), torch.stack(found[kept:])


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        remedy = "name the folder of ImageNet's training images, with a folder for each WordNet id"
        raise InputError(f"there is no folder {folder}", remedy)
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _readable(paths: Iterator[Path], size: int) -> Iterator[Tensor]:
    for path in paths:
        picture = in_mode(read_picture(path), path, "rgb")
        if min(picture.size) >= size:
            yield pixels(crop_centre(scale_short_side(picture, size), size))


def _labelled(each: list[Tensor]) -> tuple[Tensor, Tensor]:
    labels = torch.tensor([label for label, images in enumerate(each) for _ in images])
    return torch.cat(each).float().div_(255), labels
