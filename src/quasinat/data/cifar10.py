"""CIFAR-10 from the official `cifar-10-batches-py` folder (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from pathlib import Path
from shlex import quote
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from quasinat.arrays import Images, Labels
from quasinat.data.dataset import Dataset
from quasinat.data.plain_pickle import Call, PlainPickleError, read_plain_pickle
from quasinat.errors import InputError, UsageError, did_you_mean

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
FOLDER = "cifar-10-batches-py"
_PER_BATCH, _PIXELS = 10_000, 3 * 32 * 32
_NAMES = frozenset({"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"})


def cifar10(root: str | Path, split: str = "train") -> tuple[Images, Labels]:
    """The images (float32 `N 3 32 32` in [0, 1]) and labels of one split: "train" (50,000) or "test" (10,000).

    The files are Python 2 pickles; they are read as data, nothing in them is ever executed.

    Args:
        root: the folder `cifar-10-batches-py`, or the folder that holds it.
        split: "train" or "test".

    Raises:
        UsageError: another split.
        InputError: a missing folder or batch, or a damaged one.
    """
    if split not in BATCHES:
        raise UsageError(f"CIFAR-10 has no split {split!r}", did_you_mean(split, list(BATCHES)))
    folder = _find(Path(root))
    names = BATCHES[split]
    images = torch.empty(len(names) * _PER_BATCH, 3, 32, 32)
    labels = torch.empty(len(names) * _PER_BATCH, dtype=torch.int64)
    for index, name in enumerate(names):
        rows = slice(index * _PER_BATCH, (index + 1) * _PER_BATCH)
        pixels, labels[rows] = read_batch(folder / name)
        images[rows] = pixels
    return images.div_(255), labels


def cifar10_dataset(root: str | Path) -> Dataset:
    """Both splits of CIFAR-10 as a `Dataset`; arguments and errors as in `cifar10`.

    Args:
        root: the folder that holds cifar-10-batches-py.
    """
    train_images, train_labels = cifar10(root, "train")
    test_images, test_labels = cifar10(root, "test")
    description = "CIFAR-10 (Krizhevsky, 2009): 50,000 training and 10,000 test photographs of 32x32 pixels."
    return Dataset("cifar10", train_images, train_labels, test_images, test_labels, CLASSES, description)


def _find(root: Path) -> Path:
    for folder in (root / FOLDER, root):
        if any((folder / name).is_file() for names in BATCHES.values() for name in names):
            return folder
    raise InputError(f"there is no folder {FOLDER} with CIFAR-10 batches in {root}", _remedy(root))


def _remedy(folder: Path) -> str:
    """The command that puts the official batches where they are looked for."""
    dest = folder.parent if folder.name == FOLDER else folder
    return f"fetch it with `quasinat data cifar10 --dest {quote(str(dest))}`"


def read_batch(path: Path) -> tuple[UInt8[Tensor, "batch channels height width"], Labels]:
    """The 10,000 8-bit images and labels of one official batch file.

    Raises:
        InputError: the file is missing, truncated, corrupt or no CIFAR-10 batch; names it and the remedy.
    """
    remedy = _remedy(path.parent)
    try:
        content = read_plain_pickle(path.read_bytes(), _NAMES)
    except FileNotFoundError:
        raise InputError(f"the CIFAR-10 batch {path} is missing", remedy) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})", "check its permissions") from None
    except PlainPickleError as error:
        raise InputError(f"{path} is no intact CIFAR-10 batch ({error})", remedy) from None
    pixels, labels = _pixels(content), _labels(content)
    if pixels is None:
        raise InputError(f"{path} is no CIFAR-10 batch (no {_PER_BATCH}x{_PIXELS} 8-bit array 'data')", remedy)
    if labels is None:
        raise InputError(f"{path} is no CIFAR-10 batch (no {_PER_BATCH} labels from 0 to 9)", remedy)
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(_PER_BATCH, 3, 32, 32)
    return images, torch.tensor(labels, dtype=torch.int64)


def _pixels(content: Any) -> bytes | None:
    """The bytes of the array under `data`, a numpy array as Python 2 pickled it: row by row, 8 bits each."""
    match content:
        case {"data": Call(state=(1, shape, Call("numpy dtype", ("u1", *_)), False, str(text)))}:
            pixels = text.encode("latin-1", "ignore")  # how the reader hands over bytes
            return pixels if shape == (_PER_BATCH, _PIXELS) and len(pixels) == _PER_BATCH * _PIXELS else None
    return None


def _labels(content: Any) -> list[int] | None:
    match content:
        case {"labels": list(labels)} if len(labels) == _PER_BATCH:
            return labels if all(type(label) is int and 0 <= label <= 9 for label in labels) else None
    return None
