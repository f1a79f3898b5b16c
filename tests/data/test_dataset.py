"""Validation, subsets and the fingerprint of a data set."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quasinat.data import Dataset, check_images, subset
from quasinat.data.dataset import _check_halves, _check_labels
from quasinat.errors import InputError, UsageError


@pytest.fixture
def dataset(generator: torch.Generator) -> Dataset:
    return Dataset(
        name="toy",
        train_images=torch.rand(60, 1, 4, 4, generator=generator),
        train_labels=torch.arange(60) % 3,
        test_images=torch.rand(30, 1, 4, 4, generator=generator),
        test_labels=torch.arange(30) % 3,
        classes=("a", "b", "c"),
    )


def _planted(value: float) -> Tensor:
    images = torch.full((5, 1, 8, 8), 0.5)
    images[3, 0, 2, 2] = value
    return images


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (_planted(float("nan")), r"image 3 holds NaN or infinity \(1 such\)"),
        (_planted(float("inf")), "image 3 holds NaN or infinity"),
        (_planted(-float("inf")), "image 3 holds NaN or infinity"),
        (_planted(1.5), r"image 3 has pixels from 0.5 to 1.5, outside \[0, 1\]; divide 8-bit images by 255"),
        (_planted(-0.1), r"image 3 has pixels from -0.1 to 0.5"),
        (torch.rand(3, 8, 8), r"3 dimensions \(3, 8, 8\).*images\[None\]"),
        (torch.rand(8, 8), "2 dimensions"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"uint8, not floating point; divide"),
        (torch.zeros(0, 1, 8, 8), "no pixels"),
    ],
)
def test_bad_images_are_named(images: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_images(images)


def test_images_smaller_than_the_filter_are_refused() -> None:
    images = torch.rand(2, 1, 8, 10)
    check_images(images, filter_size=8)
    with pytest.raises(InputError, match="8x10 pixels are smaller than the 9x9 filters; use filters of at most 8"):
        check_images(images, filter_size=9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_bounds_are_allowed(dtype: torch.dtype) -> None:
    check_images(torch.tensor([0.0, 1.0], dtype=dtype).view(1, 1, 1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"train_images": d.train_images + 1}, "outside"),
        (lambda d: {"train_labels": d.train_labels + 1}, "labels run from 1 to 3 but there are 3 classes"),
        (lambda d: {"train_labels": d.train_labels - 1}, "labels run from -1"),
    ],
)
def test_an_inconsistent_data_set_is_refused(
    dataset: Dataset, change: Callable[[Dataset], dict[str, Tensor]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replace(dataset, **change(dataset))


def test_halves_that_do_not_fit_are_refused() -> None:
    """Called directly: among the tests the shape annotations of `Dataset` speak first."""
    images = torch.rand(4, 1, 8, 8)
    with pytest.raises(InputError, match="differ in channels: 1 and 3"):
        _check_halves(images, images.expand(-1, 3, -1, -1))
    _check_halves(images, images[:, :, :7])  # of another size they may be
    with pytest.raises(InputError, match="not float32"):
        _check_halves(images, images.double())


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int32)])
def test_labels_that_do_not_fit_are_refused(labels: Tensor) -> None:
    with pytest.raises(InputError, match="4 images need as many int64 labels"):
        _check_labels(labels, 4, 3)


def test_subset_is_balanced_and_keeps_pairs(dataset: Dataset) -> None:
    part = subset(dataset, 4, 2, seed=0)
    assert part.train_labels.bincount().tolist() == [4, 4, 4]
    assert part.test_labels.bincount().tolist() == [2, 2, 2]
    for image, label in zip(part.train_images, part.train_labels, strict=True):
        (index,) = (dataset.train_images == image).flatten(1).all(1).nonzero().flatten()
        assert dataset.train_labels[index] == label


def test_subset_is_seeded_and_nested(dataset: Dataset) -> None:
    small, again, other, large = (subset(dataset, n, 2, seed) for n, seed in [(4, 0), (4, 0), (4, 1), (9, 0)])
    assert small.fingerprint() == again.fingerprint()
    assert small.fingerprint() != other.fingerprint()
    inside = {tuple(row) for row in large.train_images.flatten(1).tolist()}
    assert {tuple(row) for row in small.train_images.flatten(1).tolist()} <= inside


def test_subset_of_everything_is_everything(dataset: Dataset) -> None:
    assert subset(dataset, 20, 10, seed=3).fingerprint() == dataset.fingerprint()


def test_subset_refuses_what_is_not_there(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="class 'a' of toy has 20 training images, not 21; ask for at most 20"):
        subset(dataset, 21, 1, seed=0)
    with pytest.raises(UsageError, match="0 test images per class"):
        subset(dataset, 1, 0, seed=0)


def test_fingerprint_sees_pixels_labels_and_shape(dataset: Dataset) -> None:
    assert len(dataset.fingerprint()) == 64
    assert replace(dataset, name="other").fingerprint() == dataset.fingerprint()
    images = dataset.train_images.clone()
    images[7, 0, 1, 1] = 0
    labels = dataset.test_labels.clone()
    labels[0] = 1
    wide = replace(
        dataset, train_images=dataset.train_images.view(60, 1, 2, 8), test_images=dataset.test_images.view(30, 1, 2, 8)
    )
    variants = [dataset, replace(dataset, train_images=images), replace(dataset, test_labels=labels), wide]
    assert len({variant.fingerprint() for variant in variants}) == 4


def test_fingerprint_is_the_same_for_a_strided_view(dataset: Dataset) -> None:
    strided = dataset.train_images.to(memory_format=torch.channels_last)
    assert replace(dataset, train_images=strided).fingerprint() == dataset.fingerprint()
