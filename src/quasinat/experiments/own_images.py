"""Images to try somebody else's classifier on: drawn from a folder, of one size, with labels where they are known."""

from dataclasses import dataclass
from pathlib import Path

import torch

from quasinat.arrays import Images, Labels
from quasinat.data.draws import generator_for
from quasinat.data.image_files import CONVERSIONS, crop_centre, in_mode, pixels, read_picture, scale_short_side
from quasinat.data.image_tree import ImageTree
from quasinat.data.imagenet import LABELS, read_class_numbers
from quasinat.data.shards import Source, open_source
from quasinat.errors import InputError, UsageError
from quasinat.interop.own_model import OwnModel, Size, classes_of


@dataclass(frozen=True)
class OwnImages:
    """Images `N C H W` in [0, 1].

    Attributes:
        labels: `N`, the classifier's number of each one's class; None where it is not known.
        labelled: how the labels are known, or why they are not, in words.
        names: of the images, in order.
        left_out: the names of others that cannot be used, and why.
    """

    images: Images
    labels: Labels | None
    labelled: str
    names: tuple[str, ...]
    left_out: dict[str, str]


def own_images(
    root: Path, model: OwnModel, *, channels: int, count: int, size: int | None = None, seed: int = 0
) -> OwnImages:
    """`count` images at random, or all if there are fewer; a larger draw contains a smaller one.

    Image files are scaled so that their short side fits and cropped in their centre; images of CIFAR-10 and of shards
    keep their size.

    Args:
        root: see `open_source`.
        model: its `size` is theirs, unless `size` is given; its `labels` may name the folders of classes.
        channels: of the images, 1 or 3.

    Raises:
        InputError: see `open_source`; or none of the images can be used, they differ in size, or the classifier cannot
            take them.
        UsageError: a `count` or a `size` below one, or no size where one is needed.
    """
    for name, value in (("--count", count), ("--size", size or 1)):
        if value < 1:
            raise UsageError(f"{name} {value} is not above zero", "give a positive number")
    source = open_source(root)
    sides = model.size if size is None else (size, size)
    tree = isinstance(source, ImageTree)
    if tree and (sides is None or sides[0] != sides[1]):
        raise UsageError("the classifier does not say which size of images it wants", "name one with --size")
    found: dict[int, torch.Tensor] = {}
    left_out: dict[str, str] = {}
    for index in torch.randperm(len(source.names), generator=generator_for(seed, "own images")).tolist():
        if len(found) == count:
            break
        try:
            found[index] = _of_size(source, root, index, sides, channels) if tree else source.read(index, channels)
        except InputError as error:
            left_out[source.names[index]] = str(error)
    if not found:
        raise InputError(
            f"no image of {root} can be used ({next(iter(left_out.values()), 'it has none')})",
            "pass a folder of images",
        )
    if len({tuple(image.shape) for image in found.values()}) > 1:
        raise InputError(f"the images of {root} differ in size", "pass image files, or shards of one size")
    images = torch.stack(list(found.values()))
    numbers, labelled = class_numbers(source, root, model, classes_of(model, images))
    labels = None if numbers is None else torch.tensor([numbers[index] for index in found])
    return OwnImages(images, labels, labelled, tuple(source.names[index] for index in found), left_out)


def class_numbers(source: Source, root: Path, model: OwnModel, classes: int) -> tuple[list[int] | None, str]:
    """The classifier's number of each image's class, and in words how it is known; None where it is not.

    Of CIFAR-10 and shards it is the set's own where the classifier has as many classes. Of files it is that of the
    first folder of their path: by the file `labels.csv` beside the folders, by the classifier's names of its classes,
    or by the folders' order where there are as many.
    """
    if source.labels is not None:
        if not len(source.labels) or int(source.labels.max()) >= classes:
            return None, f"the set's labels are not those of {classes} classes"
        return source.labels.tolist(), "of the set"
    folders = [name.split("/")[0] if "/" in name else None for name in source.names]
    distinct = sorted({folder for folder in folders if folder is not None})
    if None in folders or not distinct:
        return None, "not known: the images lie in no class folders"
    if (root / LABELS).is_file():
        numbers, rule = read_class_numbers(root / LABELS, classes)[0], f"by {LABELS}"
    else:
        words = {_plain(word): number for number, label in model.labels.items() for word in (label, *label.split(","))}
        numbers = {name: words[_plain(name)] for name in distinct if _plain(name) in words}
        rule = "by the classes' names"
    if not numbers and len(distinct) == classes:
        numbers, rule = {name: number for number, name in enumerate(distinct)}, "by the order of the class folders"
    strange = [name for name in distinct if name not in numbers]
    if strange:
        return None, f"not known: the folder {strange[0]} is no class of the classifier's"
    return [numbers[folder] for folder in folders if folder is not None], rule


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _of_size(source: Source, root: Path, index: int, sides: Size | None, channels: int) -> torch.Tensor:
    assert sides is not None
    path = root / source.names[index]
    picture = in_mode(read_picture(path), path, CONVERSIONS[channels])
    return pixels(crop_centre(scale_short_side(picture, sides[0]), sides[0])).float() / 255
