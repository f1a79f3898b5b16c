"""The ten whole photographs and their standardisation."""

import sys

import pytest
import torch

from quasinat.data import PHOTOGRAPHS, photograph, standardise
from quasinat.errors import InputError, UsageError


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_is_read(name: str) -> None:
    colour = photograph(name, colour=True)
    grey = photograph(name)
    assert colour.shape[0] == 3
    assert grey.shape == (1, *colour.shape[1:])
    assert min(grey.shape[1:]) == 256
    for image in (colour, grey):
        assert image.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1


def test_grey_is_the_luma_of_itu_r_601() -> None:
    weights = torch.tensor([0.299, 0.587, 0.114])
    expected = torch.einsum("c,chw->hw", weights, photograph("coffee", colour=True, size=64))
    torch.testing.assert_close(photograph("coffee", size=64)[0], expected)


def test_size_is_the_short_side() -> None:
    assert photograph("coffee", size=100).shape == (1, 100, 150)


def test_misspelt_name_names_the_close_match() -> None:
    with pytest.raises(UsageError, match="did you mean 'coffee'"):
        photograph("cofee")


def test_size_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="side of 0 pixels"):
        photograph("coffee", size=0)


def test_a_release_without_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    files = sys.modules["quasinat.data.photographs"]._FILES
    monkeypatch.setitem(files, "rocket", ("skimage", "data/gone.jpg"))
    with pytest.raises(InputError, match=r"scikit-image ships no data/gone\.jpg .* 'rocket'; install another release"):
        photograph("rocket")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        photograph("china")


def test_standardise_brings_mean_and_deviation(generator: torch.Generator) -> None:
    images = 0.3 + 0.01 * torch.rand(4, 3, 16, 16, generator=generator)
    out = standardise(images)
    torch.testing.assert_close(out.mean((1, 2, 3)), torch.full((4,), 0.5))
    torch.testing.assert_close(out.std((1, 2, 3), correction=0), torch.full((4,), 0.2))


def test_standardise_clips_and_is_batch_independent() -> None:
    images = torch.stack([photograph("hubble_deep_field", size=32)[:, :, :32], photograph("ihc", size=32)])
    out = standardise(images)
    assert out.min() >= 0
    assert out.max() == 1
    for index in range(len(images)):
        torch.testing.assert_close(out[index : index + 1], standardise(images[index : index + 1]))


def test_standardise_keeps_an_image_without_contrast_plain() -> None:
    torch.testing.assert_close(
        standardise(torch.full((1, 1, 8, 8), 0.7)), torch.full((1, 1, 8, 8), 0.5), atol=1e-4, rtol=0
    )
