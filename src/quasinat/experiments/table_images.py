"""The image sets of the tables by name: how they are read from below one root, and which classifiers they have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from quasinat.data import Dataset, imagenet, load, subset
from quasinat.data.imagenet10 import TEST, TRAIN, imagenet10_groups, wordnet_names
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments.table_settings import TableSettings

SMALLER = 128  # pixels: the side of the training images that ImageNet's layer learns from
MOST_TRAIN, MOST_TEST = 10_000, 5000  # of ImageNet's images: they fill 2 GB at 128 px, and 3 GB at 224


@dataclass(frozen=True)
class ImageSet:
    """How a set is read, cut to the settings' numbers, and a key of `CLASSIFIERS`."""

    read: Callable[[Path, TableSettings], Dataset]
    network: str = "vgg"


def _imagenet10(size: int) -> Callable[[Path, TableSettings], Dataset]:
    """Ten groups of the full set in `imagenet` where its training images are, else the folder `imagenet10`.

    No more of the full set is decoded than the settings ask for; the presets `medium` and `full` ask for all of its
    100,000 images, which fill 5 GB at 64 px and 20 GB at 128 px.
    """

    def read(root: Path, settings: TableSettings) -> Dataset:
        if (root / "imagenet" / "train").is_dir():
            classes = len(imagenet10_groups())
            train, test = (
                min(most, max(1, asked // classes)) for most, asked in ((TRAIN, settings.train), (TEST, settings.test))
            )
            options = {"size": size, "train_each": train, "test_each": test, "seed": settings.seed}
            return balanced(load("imagenet10", root / "imagenet", **options), settings)
        found = balanced(load("folder", root / "imagenet10", size=size), settings)
        return replace(found, classes=tuple(wordnet_names().get(name, name) for name in found.classes))

    return read


def _imagenet(root: Path, settings: TableSettings) -> Dataset:
    """Validation images at 224 px, and training images at 128 px, which the layer learns from: of the full set in
    `imagenet` where that is, else of `imagenet-val` and of `imagenet10`.

    Of all 1.28 million, at most `MOST_TRAIN` and `MOST_TEST` are read, whatever the settings ask for.
    """
    full = root / "imagenet"
    whole = (full / "val").is_dir()
    return imagenet(
        full if whole else root / "imagenet-val",
        training=full / "train" if whole else root / "imagenet10" / "train",
        training_size=SMALLER,
        train=min(settings.train, MOST_TRAIN),
        test=min(settings.test, MOST_TEST),
        seed=settings.seed,
    )


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
