"""The split into a band that passes and one that is coded, and the coded band of images read a few at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from quasinat.data import photographs
from quasinat.errors import UsageError
from quasinat.sparse_coding import ImageSource, tikhonov_split
from quasinat.strata import Split, split_bands
from quasinat.strata.bands import CodedBand
from sparse_coding.unchecked import unchecked

SPLITS = pytest.mark.parametrize("split", ["tikhonov", "none", "mid-grey"])


@pytest.fixture(scope="module")
def images() -> Tensor:
    return photographs(32, colour=True, train_per_class=1, test_per_class=1).train_images


@SPLITS
def test_the_bands_add_up(split: Split, images: Tensor) -> None:
    kept = images.clone()
    passed, coded = split_bands(images, split)
    torch.testing.assert_close(passed + coded, images, rtol=0, atol=1e-6)
    assert images.equal(kept)
    if split == "tikhonov":
        assert all(part.equal(same) for part, same in zip((passed, coded), tikhonov_split(images), strict=True))
        assert coded.mean((2, 3)).abs().max() < 1e-5
    else:
        assert (passed == (0.5 if split == "mid-grey" else 0)).all()


def test_an_unknown_split_is_refused(images: Tensor) -> None:
    with unchecked(), pytest.raises(UsageError, match="unknown split 'midgrey'; did you mean 'mid-grey'"):
        split_bands(images, "midgrey")  # type: ignore[arg-type]


@SPLITS
def test_the_coded_band_is_that_of_its_rows(split: Split, images: Tensor) -> None:
    rows = torch.tensor([7, 2, 2, 9])
    band = CodedBand(images, rows, split)
    assert isinstance(band, ImageSource)
    assert len(band) == 4
    expected = split_bands(images[rows], split)[1]
    assert band[torch.arange(4)].equal(expected)
    assert band[torch.tensor([3, 0])].equal(expected[[3, 0]])
    assert band[torch.tensor([], dtype=torch.int64)].shape == (0, 3, 32, 32)


@SPLITS
def test_8_bit_images_are_as_good_as_floats(split: Split, images: Tensor) -> None:
    eight = (images * 255).round().to(torch.uint8)
    rows = torch.tensor([1, 8])
    bands = [CodedBand(source, torch.arange(10), split)[rows] for source in (eight, eight.float() / 255)]
    assert bands[0].equal(bands[1])
    assert bands[0].dtype == torch.float32
    assert -1 <= bands[0].min() < bands[0].max() <= 1


class Rows:
    """A source that is no tensor, over a memory-mapped array, and says which rows were read."""

    def __init__(self, path: Path) -> None:
        self.array = np.load(path, mmap_mode="r")
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Tensor) -> Tensor:
        self.read += rows.tolist()
        return torch.from_numpy(self.array[rows.numpy()])


def test_images_on_disk_are_read_row_by_row(images: Tensor, tmp_path: Path) -> None:
    eight = (images * 255).round().to(torch.uint8)
    np.save(tmp_path / "images.npy", eight.numpy())
    source, rows = Rows(tmp_path / "images.npy"), torch.tensor([5, 0, 3])
    band = CodedBand(source, rows, "none")
    assert source.read == []
    assert band[torch.tensor([2, 0])].equal(eight[[3, 5]].float() / 255)
    assert source.read == [3, 5]
    eight.numpy().tofile(tmp_path / "images.raw")
    mapped = torch.from_file(str(tmp_path / "images.raw"), size=eight.numel(), dtype=torch.uint8).view(eight.shape)
    assert CodedBand(mapped, rows, "none")[torch.arange(3)].equal(eight[rows].float() / 255)
