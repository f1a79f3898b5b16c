"""A data set from folders of images, one folder per class."""

from pathlib import Path

import torch
from torch import Tensor

from quasinat.data.dataset import Dataset
from quasinat.data.draws import generator_for
from quasinat.data.image_files import MODES, SUFFIXES, centre_square, in_mode, pixels, read_picture
from quasinat.errors import InputError, UsageError, did_you_mean

_LAYOUT = "put the images into one folder per class, such as cat/1.png and dog/1.png"


def folder(
    root: str | Path, *, size: int = 32, convert: str | None = None, test_share: float = 0.2, seed: int = 0
) -> Dataset:
    """The images below `root`, one folder per class, as float32 `N C size size` in [0, 1].

    Two layouts are known: `train/<class>/` beside `test/<class>/` (or `val/<class>/`), or `<class>/` alone, of which a
    seeded share per class becomes the test half. Classes and images are sorted by name; hidden files and files that
    are no images by their suffix are ignored. An image is resized so that its short side has `size` pixels (Lanczos),
    then its centre is cropped; it is never enlarged.

    Args:
        root: the folder.
        size: side of the images in pixels.
        convert: None requires every file to be RGB; "rgb" and "grey" (ITU-R 601 luma) convert the others, transparent
            images over white.
        test_share: share of each class held out where there is no test folder, at least one image; between 0 and 1.
        seed: of that split; the images held out of a class do not depend on the other classes.

    Raises:
        UsageError: an unknown `convert`, a share outside (0, 1) or a size below one.
        InputError: a missing or empty folder, or an image that is unreadable, too small or of another mode.
    """
    if convert is not None and convert not in MODES:
        raise UsageError(f"cannot convert images to {convert!r}", did_you_mean(convert, list(MODES)))
    if not 0 < test_share < 1:
        raise UsageError(
            f"a test share of {test_share} leaves one half empty", "choose one between 0 and 1, such as 0.2"
        )
    if size < 1:
        raise UsageError(f"images cannot have a side of {size} pixels", "choose a size such as 32")
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}", "check the path")
    train, test = _halves(root, test_share, seed)
    classes = tuple(train)
    train_images, train_labels = stack_images(list(train.values()), size, convert)
    test_images, test_labels = stack_images(list(test.values()), size, convert)
    description = f"{len(classes)} classes of images from the folder {root.name or root}."
    return Dataset("folder", train_images, train_labels, test_images, test_labels, classes, description)


def _halves(root: Path, test_share: float, seed: int) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """The image files of each class for training and for testing."""
    if (root / "train").is_dir() and _visible_folders(root / "train"):
        other = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
        if other is None:
            remedy = f"add one, or pass {root / 'train'} to have a share split off"
            raise InputError(f"{root} has train/ but neither test/ nor val/", remedy)
        train, test = class_folders(root / "train"), class_folders(other)
        if train.keys() != test.keys():
            odd = min(train.keys() ^ test.keys())
            raise InputError(
                f"class {odd!r} is in only one of {root / 'train'} and {other}", "give both the same classes"
            )
        return train, test
    everything = class_folders(root)
    train, test = {}, {}
    for name, paths in everything.items():
        if len(paths) < 2:
            problem = f"the class folder {root / name} holds a single image"
            raise InputError(problem, "add another, so that there is one to train on and one to test on")
        held = min(max(round(len(paths) * test_share), 1), len(paths) - 1)
        order = torch.randperm(len(paths), generator=generator_for(seed, name)).tolist()
        test[name] = [paths[i] for i in sorted(order[:held])]
        train[name] = [paths[i] for i in sorted(order[held:])]
    return train, test


def class_folders(root: Path) -> dict[str, list[Path]]:
    """The image files of each class folder below `root`, both sorted by name.

    Raises:
        InputError: there is no class folder, or one without images.
    """
    folders = _visible_folders(root)
    if not folders:
        raise InputError(f"there are no class folders in {root}", _LAYOUT)
    return {path.name: _image_files(path) for path in folders}


def _visible_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _image_files(path: Path) -> list[Path]:
    files = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    images = sorted(file for file in files if file.is_file())
    if not images:
        raise InputError(f"the class folder {path} holds no images", f"add some ({' '.join(SUFFIXES)}), or remove it")
    return images


def stack_images(
    per_class: list[list[Path]], size: int, convert: str | None, *, enlarge: bool = False
) -> tuple[Tensor, Tensor]:
    """Images `N C size size` and labels, class by class; 8 bits per pixel until the last step.

    Args:
        enlarge: whether images that are smaller are made larger, which are else refused.

    Raises:
        InputError: an image that is unreadable, too small or of another mode.
    """
    labels = torch.tensor([label for label, paths in enumerate(per_class) for _ in paths])
    stack = torch.empty(len(labels), 1 if convert == "grey" else 3, size, size, dtype=torch.uint8)
    for index, path in enumerate(path for paths in per_class for path in paths):
        picture = in_mode(read_picture(path), path, convert)
        if min(picture.size) < size and not enlarge:
            problem = f"{path} has {picture.width}x{picture.height} pixels, less than size {size}"
            raise InputError(problem, f"choose a size of at most {min(picture.size)}, or leave the image out")
        stack[index] = pixels(centre_square(picture, size))
    return stack.float().div_(255), labels
