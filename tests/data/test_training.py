"""Training images: the training half alone, and a fingerprint for which every training pixel counts, no test pixel."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from quasinat.data import load
from quasinat.data.training import TrainingImages, training_images
from quasinat.errors import InputError, UsageError
from quasinat.training.checkpoint import digest

from .tiny_cifar10 import tiny_cifar10, write_batch


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny_cifar10(tmp_path, monkeypatch)
    return tmp_path


def test_cifar10_is_its_training_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, eight = training_images("cifar10", root), tiny_cifar10(root, monkeypatch)
    assert data.name == "cifar10"
    assert data.images.equal(eight.float() / 255)
    assert data.images.equal(load("cifar10", root).train_images)
    assert data.fingerprint == digest(data.images)
    assert data.provenance() == {"data": "cifar10", "images": 50, "fingerprint": data.fingerprint}
    assert len(data.fingerprint) == 64


@pytest.mark.parametrize(
    "poison",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"garbage"),
        lambda path: path.write_bytes(b""),
        lambda path: write_batch(path.parents[1], path.name, torch.full((10, 3, 32, 32), 255, dtype=torch.uint8)),
    ],
    ids=["removed", "garbage", "empty", "other-images"],
)
def test_the_test_batch_is_not_even_opened(
    root: Path, poison: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = training_images("cifar10", root)
    poison(root / "cifar-10-batches-py" / "test_batch")
    read: list[str] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    after = training_images("cifar10", str(root))
    assert after.images.equal(before.images)
    assert after.provenance() == before.provenance()
    assert read == [f"data_batch_{number}" for number in range(1, 6)]


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (7, 1, 13, 31), (9, 2, 31, 31)])
@pytest.mark.parametrize("number", [1, 5])
def test_every_training_pixel_counts(
    root: Path, number: int, place: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = training_images("cifar10", root)
    images = tiny_cifar10(root, monkeypatch)[10 * (number - 1) : 10 * number]
    images[place] ^= 1
    write_batch(root, f"data_batch_{number}", images)
    after = training_images("cifar10", root)
    assert int((after.images != before.images).sum()) == 1
    assert after.fingerprint != before.fingerprint


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(256, (20, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    Image.fromarray(np.asarray(pixels)).save(path)


@pytest.mark.parametrize("halves", [True, False])
def test_of_a_folder_the_training_half_is_taken(halves: bool, tmp_path: Path) -> None:
    for seed, name in enumerate(("a/0", "a/1", "a/2", "b/0", "b/1", "b/2")):
        for half in ("train", "test") if halves else ("",):
            picture(tmp_path / half / f"{name}.png", 10 * seed + (half == "test"))
    options = {"size": 16}
    data, whole = training_images("folder", tmp_path, **options), load("folder", tmp_path, **options)
    assert data.images.equal(whole.train_images)
    assert len(data.images) == (6 if halves else 4)

    def is_training(path: Path, seed: int) -> bool:
        """Whether a change of this file changes the training images; the fingerprint must say the same."""
        content = path.read_bytes()
        picture(path, seed)
        changed = training_images("folder", tmp_path, **options)
        path.write_bytes(content)
        assert changed.images.equal(data.images) == (changed.fingerprint == data.fingerprint)
        return not changed.images.equal(data.images)

    changed = [path for seed, path in enumerate(sorted(tmp_path.rglob("*.png"))) if is_training(path, 100 + seed)]
    assert len(changed) == len(data.images)
    assert not any("test" in path.relative_to(tmp_path).parts for path in changed)


def test_photographs_take_their_options() -> None:
    data = training_images("photographs", None, colour=True, train_per_class=2, test_per_class=1)
    whole = load("photographs", colour=True, train_per_class=2, test_per_class=3)
    assert data.images.equal(whole.train_images)
    assert data.fingerprint == digest(whole.train_images)


def test_what_cannot_be_read_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no data set 'cifar'; did you mean 'cifar10'"):
        training_images("cifar", root)
    with pytest.raises(UsageError, match="'cifar10' needs the folder of its files; name it with --root"):
        training_images("cifar10", None)
    with pytest.raises(UsageError, match="'cifar10' has no option 'size'; leave it out"):
        training_images("cifar10", root, size=48)
    with pytest.raises(UsageError, match="'photographs' is built in; leave --root out"):
        training_images("photographs", root)
    with pytest.raises(InputError, match="there is no folder"):
        training_images("folder", tmp_path / "nowhere")
    (root / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(InputError, match="data_batch_3 is missing; fetch"):
        training_images("cifar10", root)


def test_the_images_are_kept_as_they_are(generator: torch.Generator) -> None:
    images: Tensor = torch.rand(3, 1, 8, 8, generator=generator)
    data = TrainingImages("mine", images, "f")
    assert data.images is images
    assert data.provenance() == {"data": "mine", "images": 3, "fingerprint": "f"}
