"""Strata: deterministic, of any image size, each image on its own; and split_bands."""

import pytest
import torch
from torch import Tensor

from quasinat.data import photographs
from quasinat.errors import UsageError
from quasinat.strata import Split, Strata, fit_strata, learn_dictionaries, split_bands


@pytest.fixture(scope="module")
def patches() -> tuple[Tensor, Tensor]:
    dataset = photographs(48, colour=True, train_per_class=6, test_per_class=2)
    return dataset.train_images, dataset.test_images


@pytest.fixture(scope="module")
def strata(patches: tuple[Tensor, Tensor]) -> Strata:
    return fit_strata(patches[0], count=3, neighbours=5, epochs=2)


def test_images_get_a_stratum_each_on_its_own(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    members = strata(patches[1])
    assert members.shape == (20,)
    assert members.dtype == torch.int64
    assert members.min() >= 0
    assert members.max() < 3
    assert [int(strata(image[None])) for image in patches[1]] == members.tolist()
    assert strata(patches[1].flip(0)).equal(members.flip(0))


def test_training_images_mostly_keep_their_cluster(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    assert (strata(patches[0]) == strata.labels).double().mean() > 0.8
    assert strata.labels.bincount(minlength=3).min() > 0
    alone = Strata(strata.autoencoder, strata.latents, strata.labels, count=3, neighbours=1)
    assert alone(patches[0]).equal(strata.labels)


def test_the_seed_decides(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    again = fit_strata(patches[0], count=3, neighbours=5, epochs=2)
    assert again.labels.equal(strata.labels)
    assert again.latents.equal(strata.latents)
    assert again(patches[1]).equal(strata(patches[1]))


def test_images_of_other_sizes_are_taken(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    large = torch.nn.functional.interpolate(patches[1], (256, 256), mode="bilinear", align_corners=False)
    agreement = (strata(large) == strata(patches[1])).double().mean()
    assert agreement >= 0.9  # the same pictures, larger


def test_training_mode_changes_nothing(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    before = strata(patches[1])
    strata.train()
    assert strata(patches[1]).equal(before)
    assert strata(patches[1][:1]).equal(before[:1])
    strata.eval()


def test_each_dictionary_learns_from_its_own_stratum(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    images = patches[0][:24]
    members = strata(images)
    seen: list[tuple[int, int]] = []
    arguments = {"filters": 4, "size": 4, "iterations": 1, "images_each": 4}
    dictionaries = learn_dictionaries(images, strata, **arguments, on_iteration=lambda m, i, _: seen.append((m, i)))
    assert seen == [(m, i) for m in range(3) for i in range(2)]
    assert [dictionary.images for dictionary in dictionaries] == members.bincount(minlength=3).clamp(max=4).tolist()
    (alone,) = learn_dictionaries(images[members == 0], **arguments)
    torch.testing.assert_close(dictionaries[0].filters, alone.filters, rtol=0, atol=1e-4)


def test_the_universal_dictionary_is_one(patches: tuple[Tensor, Tensor]) -> None:
    dictionaries = learn_dictionaries(patches[0], filters=4, size=4, iterations=1, images_each=8)
    assert len(dictionaries) == 1
    assert dictionaries[0].filters.shape == (4, 3, 4, 4)


def test_an_empty_stratum_is_refused(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    wider = Strata(strata.autoencoder, strata.latents, strata.labels, count=4, neighbours=5)
    with pytest.raises(UsageError, match="stratum 3 holds no training image; ask for fewer strata"):
        learn_dictionaries(patches[0], wider, filters=2, size=3, iterations=0, images_each=2)


@pytest.mark.parametrize("split", ["tikhonov", "none"])
def test_the_bands_add_up(split: Split, patches: tuple[Tensor, Tensor]) -> None:
    passed, coded = split_bands(patches[1], split)
    torch.testing.assert_close(passed + coded, patches[1], rtol=0, atol=1e-6)
    if split == "none":
        assert (passed == 0.5).all()
