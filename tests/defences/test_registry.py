"""The defences by name, with options and with what they have learned."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers import universal
from quasinat.defences import (
    Magnet,
    MedianFilter,
    TotalVariation,
    build_patch_bank,
    learn_magnet,
    learn_patch_dictionary,
    learn_pixelcnn,
    save_magnet,
    save_patch_bank,
    save_patch_dictionary,
    save_pixelcnn,
)
from quasinat.defences.registry import DEFENCES, LEARNED_BY, LOADERS, NEEDS, defence_from
from quasinat.errors import InputError, UsageError
from quasinat.networks import save_classifier, vgg


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(6, 3, 32, 34, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def learned(images: Tensor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small artefact of every kind."""
    folder = tmp_path_factory.mktemp("learned")
    paths = {kind: folder / kind for kind in LOADERS}
    universal(3).save(paths["layer"])
    save_classifier(paths["classifier"], vgg("vgg-small", classes=3), {})
    save_patch_bank(build_patch_bank(images, count=200), paths["patch bank"], {})
    save_magnet(learn_magnet(images, epochs=1), paths["magnet"], {})
    save_pixelcnn(learn_pixelcnn(images, width=4, blocks=2, mixtures=2, epochs=1), paths["pixelcnn"], {})
    dictionary = learn_patch_dictionary(images, size=40, select="random")
    save_patch_dictionary(dictionary, paths["patch dictionary"], {})
    return paths


@pytest.mark.parametrize("name", DEFENCES)
def test_every_defence_transforms_images_each_by_itself(name: str, images: Tensor, learned: dict[str, Path]) -> None:
    made = defence_from(name, learned[NEEDS[name]] if name in NEEDS else None)
    module = made.module.eval()
    with torch.no_grad():
        together = module(images)
    assert together.shape[:2] == images.shape[:2]
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1
    assert together.dtype == images.dtype
    for i in (0, 3):
        with torch.no_grad():
            torch.testing.assert_close(module(images[i : i + 1])[0], together[i], rtol=0, atol=2e-5)
    assert module(images[:0]).shape[0] == 0
    assert made.channels == (3 if name in NEEDS else None)
    assert not together.equal(images) or name == "stl"


def test_options_have_the_types_of_their_defaults() -> None:
    made = defence_from("tvm:weight=0.1,drop=0,steps=7").module
    assert isinstance(made, TotalVariation)
    assert (made.weight, made.drop, made.steps) == (0.1, 0, 7)
    filtered = defence_from("median:size=3").module
    assert isinstance(filtered, MedianFilter)
    assert filtered.size == 3
    assert defence_from("resize-pad:keep_size=yes").module.keep_size is True
    assert defence_from("tvm:seed=none").module.seed is None
    assert defence_from("pixel-deflection:share=0.01").module.share == 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tvn", "unknown defence 'tvn'; did you mean 'tvm'"),
        ("tvm:wieght=1", "tvm has no option 'wieght=1'; did you mean 'weight'"),
        ("tvm:weight", "tvm has no option 'weight'"),
        ("tvm:weight=much", "tvm's weight is 'much'; give a number, as the default 0.03"),
        ("tvm:steps=1.5", "tvm's steps is '1.5'; give a number"),
        ("resize-pad:keep_size=maybe", "resize-pad's keep_size is 'maybe'; give yes or no"),
        ("quilting", "quilting needs a patch bank; name its file with --artefact; `quasinat learn patch-bank` makes"),
        ("magnet", "magnet needs a magnet; name its file with --artefact"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        defence_from(text)
    assert message in str(refused.value)


def test_an_artefact_must_be_wanted_and_of_its_kind(learned: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="median has learned nothing"):
        defence_from("median", learned["magnet"])
    with pytest.raises(InputError, match="'magnet', not 'patch bank'"):
        defence_from("quilting", learned["magnet"])
    assert isinstance(defence_from("magnet", learned["magnet"]).module, Magnet)


def test_every_kind_can_be_read_and_says_how_it_is_made() -> None:
    assert set(NEEDS.values()) == set(LOADERS) == set(LEARNED_BY)
    assert set(NEEDS) <= set(DEFENCES)


def test_only_pixel_deflection_does_without_what_it_can_learn() -> None:
    for name in NEEDS:
        make: Any = lambda name=name: defence_from(name).module  # noqa: E731
        if name == "pixel-deflection":
            assert isinstance(make(), nn.Module)
        else:
            with pytest.raises(UsageError):
                make()
