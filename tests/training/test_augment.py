"""Augmentation moves pixels and invents none."""

import pytest
import torch

from quasinat.training.augment import mirror_and_shift


def test_mirroring_alone_keeps_every_images_pixels(generator: torch.Generator) -> None:
    images = torch.rand(40, 2, 6, 7, generator=generator)
    output = mirror_and_shift(images, generator, shift=0)
    same, flipped = ((output == other).flatten(1).all(1) for other in (images, images.flip(3)))
    assert (same | flipped).all()
    assert 5 < int(flipped.sum()) < 35
    assert output.flatten(1).sort().values.equal(images.flatten(1).sort().values)


@pytest.mark.parametrize("shift", [1, 3])
def test_shifts_are_whole_pixels_within_range(shift: int, generator: torch.Generator) -> None:
    images = torch.rand(500, 1, 12, 15, generator=generator)
    output = mirror_and_shift(images, generator, shift=shift, mirror=False)
    assert output.shape == images.shape
    seen = set()
    for image, moved in zip(images, output, strict=True):
        inner = moved[:, shift:-shift, shift:-shift]
        offsets = [
            (down, right)
            for down in range(-shift, shift + 1)
            for right in range(-shift, shift + 1)
            if inner.equal(image.roll((-down, -right), (1, 2))[:, shift:-shift, shift:-shift])
        ]
        assert len(offsets) == 1
        seen.update(offsets)
    assert len(seen) == (2 * shift + 1) ** 2  # every shift occurs


def test_the_generator_decides_and_the_images_are_left_alone() -> None:
    images = torch.rand(8, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    kept = images.clone()
    first, second = (mirror_and_shift(images, torch.Generator().manual_seed(2)) for _ in range(2))
    assert first.equal(second)
    assert images.equal(kept)
