"""JPEG against Pillow's own files on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from quasinat.data import cifar10
from quasinat.defences.jpeg import Jpeg, Subsampling, jpeg
from quasinat.defended import StraightThrough
from quasinat.errors import UsageError
from sparse_coding.unchecked import unchecked

SIDES = [(33, 47), (32, 32)]


def file_round_trip(image: Tensor, path: Path, **options: object) -> Tensor:
    """One image, through a JPEG file that Pillow writes and reads."""
    levels = np.rint(255 * image.double().numpy()).astype(np.uint8)
    pixels = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    Image.fromarray(pixels).save(path, **options)
    with Image.open(path) as picture:
        read = np.asarray(picture).astype(np.float64) / 255
    return torch.from_numpy(read)[None] if read.ndim == 2 else torch.from_numpy(read).permute(2, 0, 1)


def smooth(generator: torch.Generator, *shape: int) -> Tensor:
    """Images with large patches of colour, so that the codec has something to keep."""
    small = torch.rand(*shape[:2], 6, 6, generator=generator)
    return torch.nn.functional.interpolate(small, shape[2:], mode="bilinear").clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("quality", [1, 30, 75, 95, 100])
def test_it_is_pillows_file_to_the_pixel(
    channels: int, sides: tuple[int, int], quality: int, tmp_path: Path, generator: torch.Generator
) -> None:
    images = smooth(generator, 3, channels, *sides)
    coded = jpeg(images, quality=quality)
    for image, found in zip(images, coded, strict=True):
        assert found.equal(file_round_trip(image, tmp_path / "image.jpg", quality=quality).float())
    assert Jpeg(quality=quality)(images).equal(coded)


def test_the_defaults_are_those_of_the_source(tmp_path: Path, generator: torch.Generator) -> None:
    image = smooth(generator, 1, 3, 40, 40)
    truth = file_round_trip(image[0], tmp_path / "image.jpg", quality=75).float()
    assert jpeg(image)[0].equal(truth)
    assert not jpeg(image, subsampling="4:4:4")[0].equal(truth)


@pytest.mark.parametrize(("subsampling", "number"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_the_subsampling_reaches_the_codec(
    subsampling: Subsampling, number: int, tmp_path: Path, generator: torch.Generator
) -> None:
    images = torch.rand(1, 3, 35, 36, generator=generator, dtype=torch.float64)
    truth = file_round_trip(images[0], tmp_path / "image.jpg", quality=75, subsampling=number)
    found = Jpeg(subsampling=subsampling)(images)
    assert found.dtype == torch.float64
    assert found[0].equal(truth)


def test_other_numbers_of_channels_are_coded_as_grey_ones(tmp_path: Path, generator: torch.Generator) -> None:
    images = smooth(generator, 2, 4, 32, 41)
    coded = Jpeg()(images)
    for image, found in zip(images, coded, strict=True):
        for plane, result in zip(image, found, strict=True):
            assert result.equal(file_round_trip(plane[None], tmp_path / "plane.jpg", quality=75)[0].float())
    assert Jpeg()(images[:, :2]).equal(coded[:, :2])


def test_real_images_change_less_at_a_better_quality(real_data: Path) -> None:
    images = cifar10(real_data, "test")[0][:4]
    errors = [(jpeg(images, quality=quality) - images).square().mean().item() for quality in (10, 50, 75, 95)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.05**2


def test_an_image_does_not_depend_on_its_batch(generator: torch.Generator) -> None:
    images = smooth(generator, 4, 3, 33, 32)
    assert Jpeg()(images)[2].equal(Jpeg()(images[2:3])[0])
    assert Jpeg()(images[:0]).shape == (0, 3, 33, 32)


def test_strided_images_and_the_given_ones_stay(generator: torch.Generator) -> None:
    images = smooth(generator, 2, 3, 40, 36)
    kept, turned = images.clone(), images.transpose(2, 3)
    assert jpeg(turned).equal(jpeg(turned.contiguous()))
    assert images.equal(kept)


def test_its_gradient_must_be_named(generator: torch.Generator) -> None:
    images = smooth(generator, 1, 3, 32, 32).requires_grad_()
    with pytest.raises(UsageError, match="no gradient is named for Jpeg"):
        Jpeg()(images)
    weights = torch.randn(images.shape, generator=generator)
    (gradient,) = torch.autograd.grad((StraightThrough(Jpeg())(images) * weights).sum(), images)
    assert gradient.equal(weights)


def test_what_is_refused() -> None:
    for quality in (0, 101, -5):
        with pytest.raises(UsageError, match=f"quality is {quality}"):
            Jpeg(quality=quality)
    with unchecked(), pytest.raises(UsageError, match="unknown subsampling '4:2:1'; did you mean '4:2:"):
        Jpeg(subsampling="4:2:1")
    with unchecked(), pytest.raises(UsageError, match="unknown subsampling"):
        jpeg(torch.zeros(1, 3, 32, 32), subsampling="420")
