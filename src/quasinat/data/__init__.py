"""Image sets: the built-in photographs, CIFAR-10, ImageNet-10, and folders of images."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quasinat.data.cifar10 import cifar10, cifar10_dataset
from quasinat.data.dataset import Dataset, check_images, subset
from quasinat.data.folder import folder
from quasinat.data.imagenet import imagenet
from quasinat.data.imagenet10 import imagenet10
from quasinat.data.patches import photographs
from quasinat.data.photographs import PHOTOGRAPHS, photograph, standardise
from quasinat.errors import UsageError, did_you_mean

DATASETS: dict[str, Callable[..., Dataset]] = {
    "photographs": photographs,
    "cifar10": cifar10_dataset,
    "folder": folder,
    "imagenet10": imagenet10,
    "imagenet": imagenet,
}


def load(kind: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """The data set of a kind in `DATASETS`: "photographs" (built in), or at `root` "cifar10", "folder", "imagenet10" or
    "imagenet".

    Args:
        kind: a key of `DATASETS`.
        root: where the files are; for the photographs, None.
        options: of that kind, such as `size`; see the function of that kind.

    Raises:
        UsageError: an unknown kind or option, a missing root, or a root that is not needed.
        InputError: see the function of that kind.

    Examples:
        >>> import quasinat as qn
        >>> data = qn.data.load("photographs", train_per_class=2, test_per_class=1)
        >>> data.train_images.shape, len(data.classes)
        (torch.Size([20, 1, 32, 32]), 10)
    """
    if kind not in DATASETS:
        raise UsageError(f"there is no data set {kind!r}", did_you_mean(kind, list(DATASETS)))
    make = DATASETS[kind]
    known = list(inspect.signature(make).parameters)
    needs_root = "root" in known
    if needs_root and root is None:
        raise UsageError(f"the data set {kind!r} needs the folder of its files", "name it with --root")
    if not needs_root and root is not None:
        raise UsageError(f"the data set {kind!r} is built in", "leave --root out")
    known = [name for name in known if name != "root"]
    for name in options:
        if name not in known:
            remedy = did_you_mean(name, known) if known else "leave it out"
            raise UsageError(f"the data set {kind!r} has no option {name!r}", remedy)
    return make(root, **options) if needs_root else make(**options)


__all__ = [
    "DATASETS",
    "PHOTOGRAPHS",
    "Dataset",
    "check_images",
    "cifar10",
    "cifar10_dataset",
    "folder",
    "imagenet",
    "imagenet10",
    "load",
    "photograph",
    "photographs",
    "standardise",
    "subset",
]
