"""The patch dictionary: natural, diverse, seeded, whole on disk."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from quasinat.artefact import write_artefact
from quasinat.data.photographs import photograph
from quasinat.defences.natural_patches import (
    FLAT,
    KIND,
    PatchDictionary,
    learn_patch_dictionary,
    load_patch_dictionary,
    save_patch_dictionary,
    without_mean,
)
from quasinat.errors import InputError, UsageError
from sparse_coding.unchecked import unchecked


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Two colour tiles of a photograph."""
    whole = photograph("astronaut", colour=True)
    return torch.stack([whole[:, 40:73, 60:96], whole[:, 150:183, 90:126]])


def every_patch(images: Tensor, side: int, centred: bool) -> Tensor:
    """Every patch of the images as a vector of unit norm."""
    patches = images.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    vectors = (patches - patches.mean((2, 3), keepdim=True) if centred else patches).flatten(1)
    return F.normalize(vectors.double())


def distances(a: Tensor, b: Tensor) -> Tensor:
    """min(|a - b|, |a + b|) by its definition."""
    return torch.minimum((a[:, None] - b[None]).norm(dim=2), (a[:, None] + b[None]).norm(dim=2))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("select", ["greedy", "random"])
@pytest.mark.parametrize("patch", [4, 7])
def test_every_atom_is_a_patch_of_the_images(images: Tensor, centred: bool, select: Any, patch: int) -> None:
    learned = learn_patch_dictionary(images, size=40, patch=patch, select=select, centred=centred)
    assert learned.atoms.shape == (40, 3, patch, patch)
    assert (len(learned), learned.channels, learned.patch) == (40, 3, patch)
    to_nearest = (learned.atoms.flatten(1).double() @ every_patch(images, patch, centred).T).amax(1)
    assert torch.allclose(to_nearest, torch.ones(40, dtype=torch.float64), rtol=0, atol=1e-6)
    if centred:
        assert learned.atoms.mean((2, 3)).abs().max() < 1e-6


@pytest.mark.parametrize(("centred", "threshold"), [(False, 0.2), (False, 0.3), (True, 0.8)])
def test_no_two_atoms_are_nearer_than_the_threshold(images: Tensor, centred: bool, threshold: float) -> None:
    def nearest(select: Any) -> float:
        learned = learn_patch_dictionary(
            images, size=60, patch=6, select=select, centred=centred, least_distance=threshold
        )
        atoms = learned.atoms.flatten(1).double()
        return float((distances(atoms, atoms) + 9 * torch.eye(60)).min())

    assert nearest("greedy") >= threshold - 1e-6
    assert nearest("random") < threshold


def test_a_dictionary_that_is_full_is_maximal(images: Tensor) -> None:
    """Where no more patches are found, every patch is near one of the dictionary: none was passed over wrongly."""
    small = images[:1, :, :20, :20]
    options: dict[str, Any] = {"patch": 6, "least_distance": 0.8, "centred": True, "most_candidates": 40_000}
    with pytest.raises(UsageError, match=r"only \d+ of 4\d+ candidates were different enough") as refusal:
        learn_patch_dictionary(small, size=10_000, **options)
    most = int(str(refusal.value).split()[1])
    atoms = learn_patch_dictionary(small, size=most, **options).atoms.flatten(1).double()
    patches = small.unfold(2, 6, 1).unfold(3, 6, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    sizes = without_mean(patches)[0].flatten(1).norm(dim=1)
    varied = every_patch(small, 6, True)[sizes > 1.001 * FLAT * (3 * 36) ** 0.5]  # flat ones are no candidates
    assert len(varied) > 20
    assert (distances(varied, atoms).amin(1) < 0.8 + 1e-6).all()
    assert most > 5


def test_a_seed_decides(images: Tensor) -> None:
    first, again = (learn_patch_dictionary(images, size=30, seed=3).atoms for _ in range(2))
    assert first.equal(again)
    assert not first.equal(learn_patch_dictionary(images, size=30, seed=4).atoms)
    before = torch.random.get_rng_state()
    learn_patch_dictionary(images, size=30)
    assert before.equal(torch.random.get_rng_state())


def test_the_larger_dictionary_continues_the_smaller(images: Tensor) -> None:
    small, large = (learn_patch_dictionary(images, size=size, patch=5).atoms for size in (20, 50))
    assert large[:20].equal(small)


def test_progress_and_type(images: Tensor) -> None:
    steps: list[tuple[int, int]] = []
    learned = learn_patch_dictionary(
        images[:, :1].double(), size=30, patch=5, on_progress=lambda *step: steps.append(step)
    )
    assert steps[-1] == (30, 30)
    assert learned.atoms.dtype == torch.float64
    assert learned.channels == 1


def test_flat_patches_are_no_candidates(images: Tensor) -> None:
    flat = torch.full((1, 1, 20, 20), 0.4)
    options: dict[str, Any] = {"size": 1, "patch": 4, "most_candidates": 4000}
    assert learn_patch_dictionary(flat, **options).atoms.std() < 1e-6  # a patch of one grey is natural
    with pytest.raises(UsageError, match="only 0 of 4096 candidates"):
        learn_patch_dictionary(flat, centred=True, **options)
    with pytest.raises(UsageError, match="only 0 of 4096 candidates"):
        learn_patch_dictionary(0 * flat, **options)


def test_the_mean_is_taken_away_channel_by_channel(generator: torch.Generator) -> None:
    patches = torch.rand(5, 3, 4, 4, generator=generator, dtype=torch.float64)
    rest, means = without_mean(patches)
    assert torch.allclose(rest + means, patches, rtol=0, atol=1e-15)
    assert rest.mean((2, 3)).abs().max() < 1e-15
    assert means.shape == (5, 3, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "the dictionary's size is 0"),
        ({"patch": 1}, "the patch size is 1"),
        ({"select": "greddy"}, "did you mean 'greedy'"),
        ({"least_distance": 1.5}, r"least_distance is 1.5; give a number from 0 to below 1.414"),
        ({"least_distance": -0.1}, "least_distance is -0.1"),
        ({"most_candidates": 0}, "most_candidates is 0"),
    ],
)
def test_options_that_make_no_sense(images: Tensor, options: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(UsageError, match=message):
        learn_patch_dictionary(images, **options)


def test_images_that_make_no_sense(images: Tensor) -> None:
    with pytest.raises(InputError, match="there are no images"):
        learn_patch_dictionary(images[:0])
    with pytest.raises(InputError, match="33 x 36 pixels hold no patch of 34"):
        learn_patch_dictionary(images, patch=34)
    with pytest.raises(InputError, match="leaves"):
        learn_patch_dictionary(2 * images)


def test_a_file_holds_it_to_the_bit(images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "patches.safetensors"
    learned = learn_patch_dictionary(images, size=12, patch=5, centred=True, least_distance=0.5)
    save_patch_dictionary(learned, path, {"data": "two tiles", "seed": 0})
    read = load_patch_dictionary(path)
    assert read.atoms.equal(learned.atoms)
    assert read.centred
    assert read.card["kind"] == KIND == "patch dictionary"
    assert read.card["provenance"] == {"data": "two tiles", "seed": 0}
    assert set(load_file(path)) == {"atoms"}


def test_a_file_that_is_no_dictionary(images: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "patches.safetensors"
    atoms = F.normalize(torch.ones(2, 3 * 4 * 4)).view(2, 3, 4, 4)
    settings = {"size": 2, "channels": 3, "patch": 4, "centred": False}

    def load(tensors: dict[str, Tensor], changed: Any, kind: str = KIND) -> PatchDictionary:
        write_artefact(path, kind, tensors, {"settings": changed})
        return load_patch_dictionary(path)

    assert len(load({"atoms": atoms}, settings)) == 2
    for tensors, changed, message in (
        ({"atoms": atoms}, {**settings, "size": 3}, "its card says"),
        ({"atoms": atoms}, {**settings, "centred": 1}, "no usable setting 'centred'"),
        ({"atoms": atoms}, {**settings, "patch": 0}, "no usable setting 'patch'"),
        ({"atoms": atoms}, None, "no usable setting 'size'"),
        ({"atoms": 2 * atoms}, settings, "not of unit norm"),
        ({"atoms": atoms / 0}, settings, "not of unit norm"),
        ({"atoms": atoms.long()}, settings, "not of unit norm"),
        ({"others": atoms}, settings, "lacks the tensor atoms"),
    ):
        with pytest.raises(InputError, match=message):
            load(tensors, changed)
    with pytest.raises(InputError, match="dictionary"):
        load({"atoms": atoms}, settings, kind="autoencoder")
    with pytest.raises(InputError, match="nothing"):
        load_patch_dictionary(tmp_path / "nothing")
