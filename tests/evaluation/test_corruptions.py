"""Corruptions against what they are defined by; each image on its own; the levels of the authors."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from quasinat.data import photograph
from quasinat.defences.jpeg import jpeg
from quasinat.errors import UsageError
from quasinat.evaluation import CORRUPTIONS, corrupted
from quasinat.evaluation.corruptions import LEVELS, SEVERITIES, levels_for


@pytest.fixture(scope="module")
def photos() -> Tensor:
    names = ("astronaut", "coffee")
    return torch.stack([photograph(name, colour=True, size=32)[:, :, :32] for name in names])


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_images_stay_images_each_on_its_own_and_the_seed_decides(name: str, severity: int, photos: Tensor) -> None:
    made = corrupted(photos, name, severity, seed=3)
    assert made.shape == photos.shape
    assert made.dtype == photos.dtype
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert corrupted(photos[1:], name, severity, seed=3).equal(made[1:])
    assert corrupted(photos, name, severity, seed=4).equal(made) == ("noise" not in name)
    assert corrupted(photos[:0], name, severity).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [32, 64, 224])
def test_the_image_is_further_off_with_every_severity(name: str, side: int) -> None:
    image = photograph("astronaut", colour=True, size=side)[None]
    off = [float((corrupted(image, name, severity) - image).square().mean()) for severity in SEVERITIES]
    assert off == sorted(off)
    assert off[0] > 0


def test_noise_has_its_deviation_and_photons_their_variance() -> None:
    grey = torch.full((1, 3, 224, 224), 0.5)
    noise = corrupted(grey, "gaussian-noise", 1) - grey
    assert float(noise.mean()) == pytest.approx(0, abs=1e-3)
    assert float(noise.std()) == pytest.approx(0.08, rel=0.01)
    shot = corrupted(grey, "shot-noise", 1)
    assert float(shot.mean()) == pytest.approx(0.5, abs=1e-3)
    assert float(shot.var()) == pytest.approx(0.5 / 60, rel=0.02)
    assert float((60 * shot - (60 * shot).round()).abs().max()) < 1e-4


def test_blur_and_jpeg_are_the_libraries(photos: Tensor) -> None:
    made = corrupted(photos, "gaussian-blur", 5)
    expected = gaussian_filter(photos.numpy(), sigma=(0, 0, 1.0, 1.0), mode="reflect")
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-5)
    assert corrupted(photos, "jpeg", 2).equal(jpeg(photos, quality=65))


def test_the_levels_are_those_of_the_next_smaller_size() -> None:
    for side, size in ((28, 32), (32, 32), (63, 32), (64, 64), (128, 64), (224, 224), (500, 224)):
        assert levels_for(torch.zeros(1, 3, side, side + 9)) is LEVELS[size]
    for levels in LEVELS.values():
        assert list(levels) == list(CORRUPTIONS)
        assert {len(each) for each in levels.values()} == {len(SEVERITIES)}


def test_what_does_not_exist_is_refused(photos: Tensor) -> None:
    with pytest.raises(UsageError, match="no corruption 'gausian-blur'; did you mean 'gaussian-blur'"):
        corrupted(photos, "gausian-blur", 1)
    with pytest.raises(UsageError, match="the severity is 6; give from 1 to 5"):
        corrupted(photos, "jpeg", 6)
