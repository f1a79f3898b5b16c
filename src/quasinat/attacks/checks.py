"""What an attack refuses, and how it says so. The annotations are plain: it is these functions that check."""

import math

import torch
from torch import Tensor

from quasinat.errors import InputError, UsageError


def check_images(images: Tensor) -> None:
    """Refuses images that are not `B C H W`, floating point, finite and in [0, 1]; names the first bad one."""
    if not images.is_floating_point():
        raise InputError(f"the images are {images.dtype}", "convert them to floating point in [0, 1]")
    if images.ndim != 4:
        raise InputError(f"the images have shape {tuple(images.shape)}", "give a batch: B C H W")
    if images.numel() == 0:
        return
    low, high = _extremes(images.detach())
    _refuse_first(~(low.isfinite() & high.isfinite()), "holds NaN or infinity", "clean it or leave it out")
    _refuse_first((low < 0) | (high > 1), "leaves [0, 1]", "scale it; normalisation belongs inside the model")


def check_labels(labels: Tensor, count: int, what: str = "label") -> None:
    """Refuses labels (or targets) that are not `count` non-negative int64 numbers."""
    if labels.dtype != torch.int64:
        raise InputError(f"the {what}s are {labels.dtype}", "convert them to int64")
    if labels.shape != (count,):
        problem = f"the {what}s have shape {tuple(labels.shape)} for {count} images"
        raise InputError(problem, f"give one {what} per image")
    _refuse_first(labels < 0, f"has a negative {what}", "number the classes from 0")


def check_logits(logits: Tensor, labels: Tensor, rows: Tensor | None = None, what: str = "label") -> None:
    """Refuses logits that are not one finite row per image, or that have no column for a label (or target).

    `rows` are the numbers of these images in the caller's batch, for the error message.
    """
    if logits.ndim != 2 or len(logits) != len(labels) or not logits.is_floating_point():
        shape = f"{logits.dtype} of shape {tuple(logits.shape)} for {len(labels)} images"
        raise InputError(f"the model returns {shape}", "it must return floating-point logits, images x classes")
    classes = logits.shape[1]
    if classes < 2:
        raise InputError(f"the model has {classes} classes", "attack a classifier with at least 2")
    _refuse_first(
        labels >= classes, f"has a {what} beyond the model's classes", f"{what}s go from 0 to {classes - 1}", rows
    )
    _refuse_first(~logits.isfinite().all(1), "has logits that are not finite", "mend the model or leave it out", rows)


def check_gradient(gradient: Tensor, rows: Tensor | None = None) -> None:
    """Refuses an input gradient with NaN or infinity; names the first image."""
    if bool(
        gradient.sum(dtype=torch.float32).isfinite()
    ):  # then every part of the sum is, and no image need be looked at
        return
    bad = ~gradient.flatten(1).isfinite().all(1)
    _refuse_first(bad, "has a gradient that is not finite", "mend the model's backward pass or leave it out", rows)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuses a number of steps, restarts or classes under `least`."""
    if value < least:
        raise UsageError(f"{name} is {value}", f"give at least {least}")


def check_number(name: str, value: float, *, zero: bool = False) -> None:
    """Refuses a number that is not positive (or zero, where that is allowed) and finite."""
    if not (value > 0 or (zero and value == 0)) or math.isinf(value):
        raise UsageError(f"{name} is {value}", f"give a finite number {'of at least' if zero else 'above'} 0")


def _refuse_first(bad: Tensor, problem: str, remedy: str, rows: Tensor | None = None) -> None:
    if bool(bad.any()):
        first = bad.nonzero()[0, 0]
        raise InputError(f"image {int(first if rows is None else rows[first])} {problem}", remedy)


def _extremes(images: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each; NaN where there is one. Much quicker than `isfinite` of every pixel."""
    flat = images.flatten(1)
    return flat.amin(1), flat.amax(1)
