"""Strata: deterministic, of any image size, each image on its own; and their file."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quasinat.data import photographs
from quasinat.errors import InputError, UsageError
from quasinat.strata import Strata, fit_strata, strata_from
from quasinat.strata.pca import fit_pca


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


def test_the_margin_is_the_votes(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    members, margins = strata.vote(patches[1])
    assert members.equal(strata(patches[1]))
    distances = torch.cdist(strata.latent(patches[1]).double(), strata.latents.double())
    for row, member, margin in zip(distances, members.tolist(), margins.tolist(), strict=True):
        tally = strata.labels[row.argsort()[:5]].bincount(minlength=3)
        first, second = tally.sort(descending=True).values[:2].tolist()
        assert tally[member] == first
        assert margin == pytest.approx((first - second) / 5)
    one = Strata(strata.autoencoder, strata.latents, torch.zeros_like(strata.labels), count=1, neighbours=5)
    assert (one.vote(patches[1])[1] == 1).all()


def test_no_images_have_no_strata(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    members, margins = strata.vote(patches[1][:0])
    assert members.shape == margins.shape == (0,)


def test_an_image_that_is_not_finite_is_named(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    images = patches[1].clone()
    images[3, 1, 5, 5] = torch.nan
    with pytest.raises(InputError, match="image 3 has no finite latent; check it"):
        strata(images)


def test_components_are_those_of_the_training_latents(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    reduced = fit_strata(patches[0], count=3, components=4, autoencoder=strata.autoencoder)
    pca = fit_pca(strata.latents, 4)
    torch.testing.assert_close(reduced.latents, pca.project(strata.latents), rtol=0, atol=1e-4)
    torch.testing.assert_close(reduced.latent(patches[1]), pca.project(strata.latent(patches[1])), rtol=0, atol=1e-4)
    alone = Strata(reduced.autoencoder, reduced.latents, reduced.labels, count=3, neighbours=1, pca=reduced.pca)
    assert alone(patches[0]).equal(reduced.labels)
    assert [int(reduced(image[None])) for image in patches[1]] == reduced(patches[1]).tolist()
    assert reduced.settings()["components"] == 4
    assert strata.settings() == {"count": 3, "neighbours": 5, "channels": 3, "width": 32, "components": None}


def test_a_trained_autoencoder_is_taken_as_it_is(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    kept = copy.deepcopy(strata.autoencoder.state_dict())
    again = fit_strata(patches[0], count=3, autoencoder=strata.autoencoder)
    assert again.autoencoder is strata.autoencoder
    assert all(value.equal(kept[name]) for name, value in strata.autoencoder.state_dict().items())
    assert again.labels.equal(strata.labels)
    with pytest.raises(UsageError, match="autoencoder takes 3 channels, the images have 1; train it on images"):
        fit_strata(patches[0][:, :1], autoencoder=strata.autoencoder)


def test_the_index_is_kept_until_the_latents_change(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    own = copy.deepcopy(strata)
    before = own(patches[1])
    index = own._built()
    assert own(patches[1]).equal(before)
    assert own._built() is index
    assert not any("index" in name for name in own.state_dict())
    with torch.no_grad():
        own.latents.copy_(own.latents.flip(0))  # as load_state_dict does: each latent has another's label now
    assert own._built() is not index
    turned = Strata(own.autoencoder, strata.latents, strata.labels.flip(0), count=3, neighbours=5)
    assert own(patches[1]).equal(turned(patches[1]))
    index = own._built()
    own.latents = own.latents.clone()
    assert own._built() is not index


def test_copies_and_pickles_vote_alike(strata: Strata, patches: tuple[Tensor, Tensor]) -> None:
    before = strata(patches[1])  # the index is there
    for other in (copy.copy(strata), copy.deepcopy(strata), pickle.loads(pickle.dumps(strata))):
        assert other(patches[1]).equal(before)
    assert copy.copy(strata).latents is strata.latents
    assert strata._index is not None


@pytest.mark.parametrize("neighbours", [0, -1])
def test_a_vote_needs_voters(strata: Strata, neighbours: int) -> None:
    with pytest.raises(UsageError, match=f"{neighbours} neighbours cannot vote; ask for at least one"):
        Strata(strata.autoencoder, strata.latents, strata.labels, count=3, neighbours=neighbours)
    with pytest.raises(UsageError, match="0 labels of 0 latents; give one label a latent, at least one"):
        Strata(strata.autoencoder, strata.latents[:0], strata.labels[:0], count=3, neighbours=5)


@pytest.mark.parametrize("components", [None, 4])
def test_strata_survive_their_file(
    strata: Strata, patches: tuple[Tensor, Tensor], components: int | None, tmp_path: Path
) -> None:
    fitted = fit_strata(patches[0], count=3, components=components, autoencoder=strata.autoencoder)
    fitted.save(tmp_path / "strata.st", {"data": "photographs", "seed": 0, "curve": [0.5, 0.25]})
    loaded = Strata.load(tmp_path / "strata.st")
    assert loaded.card["provenance"] == {"data": "photographs", "seed": 0, "curve": [0.5, 0.25]}
    assert loaded.card["kind"] == "strata"
    assert fitted.card == {}
    assert loaded.settings() == fitted.settings()
    assert loaded(patches[1]).equal(fitted(patches[1]))
    ours, theirs = fitted.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(value.equal(theirs[name]) for name, value in ours.items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    prefixed = {f"strata.{name}": value for name, value in ours.items()} | {"filters": torch.zeros(1)}
    rebuilt = strata_from(fitted.settings(), prefixed, "strata.", path=tmp_path / "layer.st")
    assert rebuilt(patches[1]).equal(fitted(patches[1]))


@pytest.mark.parametrize(
    ("settings", "tensors", "problem"),
    [
        ({}, {"s.latents": None}, "lacks the tensor s.latents"),
        ({}, {"s.labels": None}, "holds s.latents of shape"),
        ({}, {"s.autoencoder.encoder.0.weight": None}, "lacks the tensor s.autoencoder.encoder.0.weight"),
        ({}, {"s.more": torch.zeros(1)}, "holds an unknown tensor s.more"),
        ({}, {"s.latents": torch.zeros(3, 2)}, r"holds s.latents of shape \(3, 2\), its card says \("),
        ({}, {"s.labels": torch.full((60,), 3)}, "holds labels that are no strata from 0 to 2"),
        ({}, {"s.labels": torch.zeros(60)}, "holds labels that are no strata from 0 to 2"),
        ({"width": 16}, {}, r"holds s.autoencoder.encoder.0.weight of shape \(32, 3, 3, 3\), its card says \(16, "),
        ({"components": 4}, {}, "holds s.latents of shape"),
        ({"count": 0}, {}, r"has no usable setting 'count' \(0\)"),
        ({"width": 10**9}, {}, "has no usable setting 'width'"),
        ({"neighbours": "5"}, {}, r"has no usable setting 'neighbours' \('5'\)"),
        ({"channels": None}, {}, r"has no usable setting 'channels' \(None\)"),
        (None, {}, r"has no usable setting 'count' \(None\)"),
    ],
)
def test_damaged_parts_are_refused_in_one_line(
    strata: Strata, settings: dict[str, Any] | None, tensors: dict[str, Tensor | None], problem: str
) -> None:
    assert len(strata.labels) == 60
    whole = {f"s.{name}": value for name, value in strata.state_dict().items()} | tensors
    given = None if settings is None else strata.settings() | settings
    with pytest.raises(InputError, match=f"^a.st {problem}.*; learn it again$"):
        strata_from(given, {k: v for k, v in whole.items() if v is not None}, "s.", path=Path("a.st"))


def test_another_file_is_no_strata(strata: Strata, tmp_path: Path) -> None:
    path = tmp_path / "strata.st"
    with pytest.raises(InputError, match=r"strata\.st is missing"):
        Strata.load(path)
    strata.save(path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"strata\.st is damaged"):
        Strata.load(path)
