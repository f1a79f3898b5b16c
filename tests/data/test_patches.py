"""The built-in data set: balance, determinism, and no pixel shared between training and test."""

import pytest
import torch
from torch import Tensor

from quasinat.data import PHOTOGRAPHS, Dataset, patches, photographs
from quasinat.errors import UsageError


@pytest.fixture(scope="module")
def default() -> Dataset:
    return photographs()


def test_default_is_4000_and_1000_grey_patches(default: Dataset) -> None:
    assert default.train_images.shape == (4000, 1, 32, 32)
    assert default.test_images.shape == (1000, 1, 32, 32)
    assert default.classes == PHOTOGRAPHS
    assert default.train_labels.bincount().tolist() == [400] * 10
    assert default.test_labels.bincount().tolist() == [100] * 10
    assert default.train_labels[:10].tolist() == list(range(10))


@pytest.mark.parametrize("size", [48, 64])
def test_other_sizes_deliver_as_many(size: int) -> None:
    dataset = photographs(size)
    assert dataset.train_images.shape == (4000, 1, size, size)
    assert dataset.test_images.shape == (1000, 1, size, size)


def test_grey_patches_have_mean_and_deviation(default: Dataset) -> None:
    mean = default.train_images.mean((1, 2, 3))
    deviation = default.train_images.std((1, 2, 3), correction=0)
    # Only clipping moves them: a few bright stars in the dark.
    assert (mean - 0.5).abs().max() < 0.03
    assert deviation.max() < 0.2 + 1e-5
    assert deviation.median() > 0.19


def test_no_patch_is_drawn_twice(default: Dataset) -> None:
    assert len(default.train_images.flatten(1).unique(dim=0)) == 4000


def test_the_seed_decides() -> None:
    first, again, other = (photographs(train_per_class=3, test_per_class=2, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()


def test_a_larger_request_contains_a_smaller(default: Dataset) -> None:
    few = photographs(train_per_class=3, test_per_class=2)
    torch.testing.assert_close(few.train_images, default.train_images[:30], rtol=0, atol=1e-6)
    torch.testing.assert_close(few.test_images, default.test_images[:20], rtol=0, atol=1e-6)


def test_a_class_is_independent_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    every = photographs(train_per_class=4, test_per_class=2)
    monkeypatch.setattr(patches, "PHOTOGRAPHS", ("rocket", "coffee"))
    two = photographs(train_per_class=4, test_per_class=2)
    for name in two.classes:
        alone = two.train_images[two.train_labels == two.classes.index(name)]
        among = every.train_images[every.train_labels == every.classes.index(name)]
        torch.testing.assert_close(alone, among)


def test_no_pixel_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pixel of a planted photograph names its column: 256 of them, and 64-pixel patches reach the furthest."""

    def planted(name: str, colour: bool = False, size: int = 256) -> Tensor:
        return (torch.arange(256.0) / 255).expand(3 if colour else 1, 256, 256)

    monkeypatch.setattr(patches, "photograph", planted)
    monkeypatch.setattr(patches, "PHOTOGRAPHS", PHOTOGRAPHS[:2])
    dataset = photographs(64, colour=True)
    train = set((dataset.train_images * 255).round().int().unique().tolist())
    test = set((dataset.test_images * 255).round().int().unique().tolist())
    assert train == set(range(166))
    assert test == set(range(180, 256))


@pytest.mark.parametrize("width", [256, 294, 379, 384, 385])
def test_the_gap_is_a_twentieth(width: int) -> None:
    train, test = patches.split_columns(width)
    assert train.start == 0
    assert test.stop == width
    assert 0.05 * width <= test.start - train.stop <= 0.05 * width + 2


def test_corners_are_those_of_textured_windows(generator: torch.Generator) -> None:
    image = torch.rand(1, 12, 20, generator=generator) * 0.08
    corners = patches.textured_corners(image, 8, range(3, 15))
    expected = [
        [top, left]
        for top in range(5)
        for left in range(3, 8)
        if image[0, top : top + 8, left : left + 8].std(correction=0) >= patches.FLAT
    ]
    assert corners.tolist() == expected
    assert len(expected) > 0


def test_a_flat_photograph_ends_in_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "photograph", lambda name, colour=False, size=256: torch.full((1, 256, 256), 0.5))
    with pytest.raises(UsageError, match="'astronaut' holds 0 textured patches of 32 pixels, not 400"):
        photographs()


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match=r"test part of photograph 'astronaut' holds 2509 .*ask for at most 2509"):
        photographs(64, train_per_class=1, test_per_class=3000)


def test_a_photograph_smaller_than_the_patch_has_no_corners() -> None:
    assert patches.textured_corners(torch.rand(1, 16, 64), 32, range(64)).shape == (0, 2)


def test_colour_keeps_colour_and_place() -> None:
    colour = photographs(colour=True, train_per_class=5, test_per_class=5)
    assert colour.train_images.shape == (50, 3, 32, 32)
    mean = colour.train_images.mean((1, 2, 3))
    assert mean.min() < 0.2  # the deep field is dark
    assert mean.max() > 0.6


@pytest.mark.parametrize("size", [0, 16, 33, 256])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match="choose a size of 32, 48 or 64"):
        photographs(size)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one of each"):
        photographs(train_per_class=0)


def test_the_docstring_and_description_say_what_it_is_not() -> None:
    assert "not a benchmark" in str(photographs.__doc__)
    assert "not a benchmark" in photographs(train_per_class=1, test_per_class=1).description
