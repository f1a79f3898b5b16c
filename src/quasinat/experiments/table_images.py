"""The image sets of the tables by name: how they are read from below one root, and which classifiers they have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from quasinat.data import Dataset, imagenet, load, subset
from quasinat.data.imagenet10 import wordnet_names
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments.table_settings import TableSettings

SMALLER = 128  # pixels: the side of the images in `imagenet10`, which ImageNet's layer learns from where that is all
MOST = 5000  # of ImageNet's validation images: they fill 3 GB


@dataclass(frozen=True)
class ImageSet:
    """How a set is read, cut to the settings' numbers, and a key of `CLASSIFIERS`."""

    read: Callable[[Path, TableSettings], Dataset]
    network: str = "vgg"


def _imagenet10(size: int) -> Callable[[Path, TableSettings], Dataset]:
    """The folder `imagenet10` of ten classes where there is one, else ten groups of the full set in `imagenet`."""

    def read(root: Path, settings: TableSettings) -> Dataset:
        if (root / "imagenet").is_dir() and not (root / "imagenet10").is_dir():
            return balanced(load("imagenet10", root / "imagenet", size=size), settings)
        found = balanced(load("folder", root / "imagenet10", size=size), settings)
        return replace(found, classes=tuple(wordnet_names().get(name, name) for name in found.classes))

    return read


def _imagenet(root: Path, settings: TableSettings) -> Dataset:
    """The full set in `imagenet` where there is one, else `imagenet-val`, and `imagenet10` to learn from."""
    read = partial(imagenet, train=settings.train, test=min(settings.test, MOST), seed=settings.seed)
    if (root / "imagenet" / "val").is_dir():
        return read(root / "imagenet")
    return read(root / "imagenet-val", training=root / "imagenet10" / "train", training_size=SMALLER)


IMAGE_SETS: dict[str, ImageSet] = {
    "cifar10": ImageSet(lambda root, settings: balanced(load("cifar10", root), settings)),
    "imagenet10-64": ImageSet(_imagenet10(64)),
    "imagenet10-128": ImageSet(_imagenet10(128)),
    "imagenet10-tuned": ImageSet(_imagenet10(128), "tuned mobilenet"),
    "imagenet": ImageSet(_imagenet, "mobilenet"),
}


def image_set_named(name: str, root: Path, settings: TableSettings) -> Dataset:
    """The image set of a table, cut to the settings' numbers, equally many of every class.

    Raises:
        UsageError: there is no such image set.
        InputError: it is not below `root`.
    """
    if name not in IMAGE_SETS:
        raise UsageError(f"there is no image set {name!r}", did_you_mean(name, list(IMAGE_SETS)))
    return IMAGE_SETS[name].read(root, settings)


def balanced(whole: Dataset, settings: TableSettings) -> Dataset:
    """As many images of every class, as the settings ask for.

    Where a set has fewer images than that, it is taken whole; where one class has too few, every class has as many as
    that one.
    """
    if settings.train >= len(whole.train_images) and settings.test >= len(whole.test_images):
        return whole
    classes = len(whole.classes)
    train, test = (
        min(max(1, asked // classes), int(labels.bincount(minlength=classes).min()))
        for asked, labels in ((settings.train, whole.train_labels), (settings.test, whole.test_labels))
    )
    return subset(whole, train, test, seed=settings.seed)
