"""A labelled image set in memory, its validation and its balanced subsets."""

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from quasinat.data.draws import generator_for
from quasinat.errors import InputError, UsageError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, in a training and a test half.

    Images are float32 `N C H W` in [0, 1], labels int64 in `0 .. len(classes) - 1`. Both halves share C; their
    sizes may differ, as a layer that was learned on small images projects larger ones.

    Args:
        name: of the set.
        train_images, test_images: `N C H W`.
        train_labels, test_labels: `N`.
        classes: the name of each label.
        description: a sentence or two on what it is.

    Raises:
        InputError: images out of range or shape, or labels that do not fit the images or the classes.
    """

    name: str
    train_images: Float32[Tensor, "train channels train_height train_width"]
    train_labels: Int64[Tensor, "train"]
    test_images: Float32[Tensor, "test channels test_height test_width"]
    test_labels: Int64[Tensor, "test"]
    classes: tuple[str, ...]
    description: str = ""

    def __post_init__(self) -> None:
        check_images(self.train_images)
        check_images(self.test_images)
        _check_halves(self.train_images, self.test_images)
        _check_labels(self.train_labels, len(self.train_images), len(self.classes))
        _check_labels(self.test_labels, len(self.test_images), len(self.classes))

    def fingerprint(self) -> str:
        """SHA-256 over the pixels and labels (with their shapes), as 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def check_images(images: Tensor, *, filter_size: int | None = None) -> None:
    """Checks that `images` is a floating-point `B C H W` batch in [0, 1], at least `filter_size` on each side.

    Raises:
        InputError: names what is wrong (for a bad pixel, the index of the first such image) and the remedy.
    """
    shape = tuple(images.shape)
    if images.ndim != 4:
        remedy = "add a batch dimension with images[None]" if images.ndim == 3 else "pass a batch B C H W"
        raise InputError(f"images have {images.ndim} dimensions {shape}, not the four B C H W", remedy)
    if images.numel() == 0:
        raise InputError(f"there are no pixels in images of shape {shape}", "pass at least one image")
    if not images.dtype.is_floating_point:
        name = str(images.dtype).removeprefix("torch.")
        raise InputError(f"images are {name}, not floating point", "divide 8-bit images by 255: images.float() / 255")
    if filter_size is not None and min(shape[2:]) < filter_size:
        problem = f"images of {shape[2]}x{shape[3]} pixels are smaller than the {filter_size}x{filter_size} filters"
        raise InputError(problem, f"use filters of at most {min(shape[2:])} pixels, or larger images")
    low, high = (bound.item() for bound in torch.aminmax(images.detach()))
    if not (low >= 0 and high <= 1):  # NaN lands here as well
        raise _bad_pixels(images.detach())


def _bad_pixels(images: Tensor) -> InputError:
    flat = images.flatten(1)
    infinite = (~flat.isfinite()).any(1)
    if infinite.any():
        index = int(infinite.nonzero()[0])
        count = int(infinite.sum())
        return InputError(f"image {index} holds NaN or infinity ({count} such)", "leave it out, or repair its source")
    index = int(((flat < 0) | (flat > 1)).any(1).nonzero()[0])
    low, high = (bound.item() for bound in torch.aminmax(flat[index]))
    problem = f"image {index} has pixels from {low:.4g} to {high:.4g}, outside [0, 1]"
    return InputError(problem, "divide 8-bit images by 255, undo a mean/std normalisation, or clamp to [0, 1]")


def _check_halves(train: Tensor, test: Tensor) -> None:
    if train.shape[1] != test.shape[1]:
        channels = f"{train.shape[1]} and {test.shape[1]}"
        raise InputError(f"training and test images differ in channels: {channels}", "make both grey or both RGB")
    if train.dtype != torch.float32 or test.dtype != torch.float32:
        raise InputError(f"images are {train.dtype} and {test.dtype}, not float32", "convert them with images.float()")


def _check_labels(labels: Tensor, images: int, classes: int) -> None:
    if labels.shape != (images,) or labels.dtype != torch.int64:
        problem = f"{images} images need as many int64 labels, not {labels.dtype} of shape {tuple(labels.shape)}"
        raise InputError(problem, "pass one class index per image, labels.long()")
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= classes:
        problem = f"labels run from {low} to {high} but there are {classes} classes"
        raise InputError(problem, f"number the classes 0 to {classes - 1}")


def subset(dataset: Dataset, train_per_class: int, test_per_class: int, seed: int = 0) -> Dataset:
    """A balanced random subset: as many images of each class, in their original order.

    The images drawn of a class depend on `seed` and on that class alone; a larger request contains a smaller one.

    Args:
        dataset: with as many images of each class at least.
        train_per_class, test_per_class: images of each class.

    Raises:
        UsageError: a count below one.
        InputError: a class that holds fewer images.

    Examples:
        >>> import quasinat as qn
        >>> data = qn.data.photographs(train_per_class=3, test_per_class=2)
        >>> qn.data.subset(data, 2, 1).train_labels.bincount().tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    train = _balanced(dataset, dataset.train_labels, train_per_class, "training", seed)
    test = _balanced(dataset, dataset.test_labels, test_per_class, "test", seed)
    return replace(
        dataset,
        train_images=dataset.train_images[train],
        train_labels=dataset.train_labels[train],
        test_images=dataset.test_images[test],
        test_labels=dataset.test_labels[test],
        description=f"{dataset.description} Subset: {train_per_class} training and {test_per_class} test images "
        f"per class, seed {seed}.".lstrip(),
    )


def _balanced(dataset: Dataset, labels: Tensor, per_class: int, split: str, seed: int) -> Tensor:
    if per_class < 1:
        raise UsageError(f"{per_class} {split} images per class were asked for", "ask for at least one")
    drawn = []
    for index, name in enumerate(dataset.classes):
        members = (labels == index).nonzero().flatten()
        if len(members) < per_class:
            problem = f"class {name!r} of {dataset.name} has {len(members)} {split} images, not {per_class}"
            raise InputError(problem, f"ask for at most {len(members)} per class")
        order = torch.randperm(len(members), generator=generator_for(seed, split, name))
        drawn.append(members[order[:per_class].to(members.device)])
    return torch.cat(drawn).sort().values
