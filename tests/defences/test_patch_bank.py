"""The bank of patches: what is drawn, how it is kept, and what is found in it."""

import copy
import pickle
from pathlib import Path

import pytest
import scipy.stats
import torch
from torch import Tensor

from quasinat.artefact import write_artefact
from quasinat.defences.patch_bank import KIND, PatchBank, build_patch_bank, load_patch_bank, save_patch_bank
from quasinat.errors import InputError, UsageError


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.randint(256, (3, 2, 11, 9), generator=generator).float() / 255


def windows(images: Tensor, size: int) -> Tensor:
    """Every patch of every image, `N C*S*S`."""
    return torch.stack(
        [
            image[:, row : row + size, column : column + size].flatten()
            for image in images
            for row in range(image.shape[1] - size + 1)
            for column in range(image.shape[2] - size + 1)
        ]
    )


def test_it_holds_patches_of_the_images_and_no_two_alike(images: Tensor) -> None:
    bank = build_patch_bank(images, count=2000, size=5)
    every = {tuple(patch.tolist()) for patch in windows(images, 5)}
    held = [tuple(patch.flatten().tolist()) for patch in bank.values(torch.arange(len(bank)), torch.float32)]
    assert len(set(held)) == len(held)
    assert set(held) == every  # 2,000 draws of 105: all of them
    assert (bank.channels, bank.size, len(bank)) == (2, 5, 105)


def test_all_images_and_places_are_equally_likely(images: Tensor) -> None:
    every = {tuple(patch.tolist()): number for number, patch in enumerate(windows(images, 9))}  # 3 images, 3 places
    drawn = [build_patch_bank(images, count=1, size=9, seed=seed) for seed in range(450)]
    counts = torch.bincount(torch.tensor([every[tuple((bank.patches[0] / 255).tolist())] for bank in drawn]))
    assert len(counts) == len(every) == 9
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_the_seed_decides(images: Tensor) -> None:
    first, again, other = (build_patch_bank(images, count=40, seed=seed).patches for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eight_bits_are_kept_as_bytes_and_others_as_they_are(images: Tensor, dtype: torch.dtype) -> None:
    levels = (255 * images).round().to(dtype)
    bank = build_patch_bank(levels / 255, count=50)
    assert bank.patches.dtype == torch.uint8
    every = {tuple(patch.tolist()) for patch in windows(levels / 255, 5)}
    assert {tuple(patch.flatten().tolist()) for patch in bank.values(torch.arange(len(bank)), dtype)} <= every
    finer = build_patch_bank(levels / 510, count=50)
    assert finer.patches.dtype == dtype
    every = {tuple(patch.tolist()) for patch in windows(levels / 510, 5)}
    assert {tuple(patch.tolist()) for patch in finer.patches} <= every


def test_saved_and_loaded(images: Tensor, tmp_path: Path) -> None:
    for number, source in enumerate((images, images / 2)):
        bank = build_patch_bank(source, count=60)
        path = tmp_path / f"{number}.safetensors"
        save_patch_bank(bank, path, {"data": "noise"})
        loaded = load_patch_bank(path)
        assert loaded.patches.equal(bank.patches)
        assert loaded.patches.dtype == bank.patches.dtype
        assert (loaded.channels, loaded.size) == (bank.channels, bank.size)
        assert loaded.card["kind"] == KIND == "patch bank"
        assert loaded.card["provenance"] == {"data": "noise"}
        sought = torch.rand(20, 50, generator=torch.Generator().manual_seed(0))
        assert loaded.nearest(sought, neighbours=3).equal(bank.nearest(sought, neighbours=3))


def test_a_bank_of_bytes_is_small(tmp_path: Path) -> None:
    images = torch.randint(256, (4, 3, 40, 40)).float() / 255
    save_patch_bank(build_patch_bank(images, count=4000), tmp_path / "bank.safetensors", {})
    assert (tmp_path / "bank.safetensors").stat().st_size < 4000 * 75 + 2000


@pytest.mark.parametrize(
    ("settings", "patches"),
    [
        (None, torch.zeros(4, 25)),
        ({"count": 4, "channels": 1}, torch.zeros(4, 25)),
        ({"count": "4", "channels": 1, "size": 5}, torch.zeros(4, 25)),
        ({"count": 0, "channels": 1, "size": 5}, torch.zeros(0, 25)),
        ({"count": 4, "channels": 1, "size": 5}, torch.zeros(3, 25)),
        ({"count": 4, "channels": 1, "size": 5}, torch.zeros(4, 25, dtype=torch.int64)),
        ({"count": 4, "channels": 1, "size": 5}, torch.full((4, 25), torch.nan)),
        ({"count": 4, "channels": 1, "size": 5}, torch.full((4, 25), 255.0)),
    ],
)
def test_a_damaged_file_is_refused_by_name(settings: object, patches: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    write_artefact(path, KIND, {"patches": patches}, {"settings": settings})
    with pytest.raises(InputError, match=r"bank\.safetensors"):
        load_patch_bank(path)
    write_artefact(path, "layer", {"patches": patches}, {"settings": settings})
    with pytest.raises(InputError, match="of kind 'layer'"):
        load_patch_bank(path)


def test_the_nearest_is_the_patch_itself_in_both_searches(images: Tensor) -> None:
    bank = build_patch_bank(images, count=500)
    own = bank.values(torch.arange(len(bank)), torch.float32).flatten(1)
    for search in ("exact", "fast"):
        assert bank.nearest(own, search=search)[:, 0].equal(torch.arange(len(bank)))
    distances = torch.cdist(own.double(), own.double())
    assert bank.nearest(own, neighbours=2)[:, 1].equal(distances.fill_diagonal_(torch.inf).argmin(1))


def test_what_is_written_to_the_bank_is_found(images: Tensor) -> None:
    bank = build_patch_bank(images, count=50)
    sought = torch.zeros(1, 50)
    last = len(bank) - 1
    assert int(bank.nearest(sought)) != last
    bank.patches[last] = 0
    assert int(bank.nearest(sought)) == last
    other = PatchBank(torch.full_like(bank.patches, 9), channels=2)
    other.load_state_dict(bank.state_dict())
    assert int(other.nearest(sought)) == last
    assert int(other.double().nearest(sought.double())) == last  # bytes stay bytes


def test_copies_and_pickles_go_without_the_tree_and_shallow_ones_share_it(images: Tensor) -> None:
    bank = build_patch_bank(images, count=50)
    bare = len(pickle.dumps(bank))
    sought = torch.rand(5, 50, generator=torch.Generator().manual_seed(0))
    found = bank.nearest(sought)
    assert bank._search.made is not None
    assert len(pickle.dumps(bank)) == bare
    deep, read = copy.deepcopy(bank), pickle.loads(pickle.dumps(bank))
    for other in (deep, read):
        assert other._search.made is None
        assert other.nearest(sought).equal(found)
    shared = copy.copy(bank)
    assert shared._search.tree(shared.patches, (2, 5, 5)) is bank._search.made[2]
    assert list(bank.state_dict()) == ["patches"]


def test_what_makes_no_sense_is_refused(images: Tensor) -> None:
    for options, message in [
        ({"count": 0}, "count"),
        ({"count": 1_000_001}, "at most 1000000"),
        ({"size": 1}, "size"),
    ]:
        with pytest.raises(UsageError, match=message):
            build_patch_bank(images, **options)
    for wrong, message in [(images[:0], "no images"), (images[..., :4], "no patch of 5"), (images + 1, "image 0")]:
        with pytest.raises(InputError, match=message):
            build_patch_bank(wrong, count=5)
    bank = build_patch_bank(images, count=5)
    with pytest.raises(UsageError, match="no 6 neighbours"):
        bank.nearest(torch.zeros(1, 50), neighbours=6)
    with pytest.raises(UsageError, match="neighbours is 0"):
        bank.nearest(torch.zeros(1, 50), neighbours=0)
    with pytest.raises(UsageError, match="did you mean 'fast'"):
        bank.check_search(1, "fats")
    for patches, channels in [(torch.zeros(3, 50), 3), (torch.zeros(3, 24), 1), (torch.zeros(0, 25), 1)]:
        with pytest.raises(InputError, match="no square patches"):
            PatchBank(patches, channels=channels)
    with pytest.raises(UsageError, match="channels is 0"):
        PatchBank(torch.zeros(3, 25), channels=0)
    with pytest.raises(InputError, match="int64"):
        PatchBank(torch.zeros(3, 25, dtype=torch.int64), channels=1)
