"""ImageNet's validation images with the labels of its 1000 classes, and some training images to learn from."""

import csv
from pathlib import Path

import torch

from quasinat.data.dataset import Dataset
from quasinat.data.draws import generator_for
from quasinat.data.folder import class_folders, stack_images
from quasinat.errors import InputError, UsageError

CLASSES = 1000
LABELS = "labels.csv"
_LAYOUT = "unpack ImageNet as train/<WordNet id> and val/<WordNet id>, 1000 folders in each"


def imagenet(
    root: str | Path,
    *,
    training: str | Path | None = None,
    size: int = 224,
    training_size: int | None = None,
    train: int = 10_000,
    test: int = 5000,
    seed: int = 0,
) -> Dataset:
    """Some of ImageNet's validation images as float32 `N 3 size size` in [0, 1], and training images beside them.

    An image is scaled so that its short side has `size` pixels (Lanczos) and cropped in its centre. The few that are
    smaller are enlarged, as no image may be missing from an accuracy on the validation images: so do Krizhevsky et
    al. (2012, section 2), who scale every image, and torchvision's `Resize` and `CenterCrop`.

    Classes are numbered as everywhere: the WordNet ids in their order. Where only some of the classes are there, a file
    `labels.csv` with the columns `wnid` and `class_index` says which; they keep their numbers. A column `name` has
    their names, which are else the ids.

    Args:
        root: holds `val` with a folder for each WordNet id, and `train`; or those of `val` itself.
        training: the folder of the training images' folders; `root/train` unless given.
        size, training_size: sides in pixels; the training images have `size` too unless another is given.
        train, test: images of each half, as many of every class and at least one, drawn by the seed; where a class has
            fewer, all of it. They fill `12 * size ** 2` bytes each.

    Raises:
        UsageError: a size or a number of images below one.
        InputError: a missing folder, a class without a number, or an image that is unreadable.
    """
    training_size = size if training_size is None else training_size
    for name, value in (("size", size), ("training_size", training_size), ("train", train), ("test", test)):
        if value < 1:
            raise UsageError(f"{name} is {value}", "give at least 1")
    root = Path(root)
    validation = root / "val" if (root / "val").is_dir() else root
    learned = Path(training or root / "train")
    halves = []
    numbers, names = _class_numbers(validation)
    for half, folder, count, side in (
        ("train", learned, train, training_size),
        ("test", validation, test, size),
    ):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}", _LAYOUT)
        chosen = _drawn(class_folders(folder), count, seed, half)
        for name in chosen:
            if name not in numbers:
                raise InputError(f"the class {name} of {folder} has no number", f"add it to {validation / LABELS}")
        images, places = stack_images(list(chosen.values()), side, "rgb", enlarge=True)
        halves.append((images, torch.tensor([numbers[name] for name in chosen])[places]))
    known = {number: names[identifier] for identifier, number in numbers.items()}
    classes = tuple(known.get(number, str(number)) for number in range(CLASSES))
    description = (
        f"ImageNet's validation images, {len(halves[1][0])} of them at {size} px, "
        f"and {len(halves[0][0])} training images of {'/'.join(learned.parts[-2:])} at {training_size} px."
    )
    return Dataset("imagenet", *halves[0], *halves[1], classes, description)


def _class_numbers(validation: Path) -> tuple[dict[str, int], dict[str, str]]:
    """The number and the name of each WordNet id: from the file, or by their order where all are there."""
    path = validation / LABELS
    if path.is_file():
        return read_class_numbers(path, CLASSES)
    names = list(class_folders(validation)) if validation.is_dir() else []
    if len(names) != CLASSES:
        problem = f"there are {len(names)} class folders in {validation}, not {CLASSES}"
        raise InputError(problem, f"{_LAYOUT}, or number the classes in {path.name}")
    return {name: number for number, name in enumerate(names)}, {name: name for name in names}


def read_class_numbers(path: Path, classes: int) -> tuple[dict[str, int], dict[str, str]]:
    """The number, below `classes`, and the name of each folder of a file with the columns wnid, class_index and name.

    Raises:
        InputError: the file has no such columns, or numbers out of range.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        numbers = {row["wnid"]: int(row["class_index"]) for row in rows}
        known = {row["wnid"]: row.get("name") or row["wnid"] for row in rows}
    except (KeyError, TypeError, ValueError, csv.Error):
        numbers, known = {}, {}
    if not numbers or not all(0 <= number < classes for number in numbers.values()):
        problem = f"{path} has no usable columns wnid and class_index"
        raise InputError(problem, f"write one number below {classes} a class")
    return numbers, known


def _drawn(classes: dict[str, list[Path]], count: int, seed: int, half: str) -> dict[str, list[Path]]:
    """As many files of every class, or all where there are fewer; in the order of their names."""
    each = max(1, count // len(classes))
    drawn = {}
    for name, paths in classes.items():
        order = torch.randperm(len(paths), generator=generator_for(seed, "imagenet", half, name)).tolist()
        drawn[name] = [paths[index] for index in sorted(order[:each])]
    return drawn
