"""Shards come back, whatever is damaged or foreign is one line, and sources are recognised from what is there."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quasinat.data.shards import (
    Parts,
    Shard,
    cifar10_parts,
    open_source,
    read_shard,
    shard_folder,
    shard_name,
    shard_summary,
    shards_in,
    write_shard,
)
from quasinat.errors import InputError, UsageError
from quasinat.files import read_tensors, write_tensors

from .official_batch import array, batch, integers
from .test_folder import save


def shard(count: int = 3, first: int = 0, channels: int = 3, size: tuple[int, int] = (5, 6)) -> Shard:
    images = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(first))
    names = tuple(f"a/{first + index}.jpg" for index in range(count))
    return Shard(images, names, torch.arange(first, first + count), torch.linspace(20, 30, count))


def official(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 12) -> Tensor:
    """A CIFAR-10 folder whose batches hold `count` images each; the pixels of the test batch."""
    monkeypatch.setattr(importlib.import_module("quasinat.data.cifar10"), "_PER_BATCH", count)
    folder.mkdir(parents=True)
    for seed, name in enumerate(["test_batch", *(f"data_batch_{number}" for number in range(1, 6))]):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randint(256, (count * 3072,), dtype=torch.uint8, generator=generator)
        labels = integers([(index + seed) % 10 for index in range(count)])
        (folder / name).write_bytes(batch(array(values.numpy().tobytes(), (count, 3072)), labels))
        if seed == 0:
            pixels = values.view(count, 3, 32, 32)
    return pixels


def test_a_shard_comes_back(tmp_path: Path) -> None:
    whole, path = shard(), tmp_path / shard_name(0)
    write_shard(path, whole)
    found = read_shard(path)
    assert found.images.equal(whole.images)
    assert found.names == whole.names
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2]
    assert found.psnr is not None
    assert found.psnr.tolist() == [20, 25, 30]
    assert shard_summary(path).shape == (3, 3, 5, 6)
    bare = Shard(whole.images, ("λ", "b\udcff", "c"))
    write_shard(path, bare)
    found = read_shard(path)
    assert (found.names, found.labels, found.psnr) == (bare.names, None, None)


def test_equal_shards_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("1", "2"):
        write_shard(tmp_path / name, shard())
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_shards_are_found_by_number(tmp_path: Path) -> None:
    for name in ("shard-00010.safetensors", "shard-00002.safetensors", "shard-100000.safetensors", "other.safetensors"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "shard-00003.safetensors").mkdir()
    assert [path.name for path in shards_in(tmp_path)] == [shard_name(2), shard_name(10), shard_name(100_000)]
    assert shards_in(tmp_path / "nowhere") == []


def refused(path: Path, match: str) -> None:
    for read in (read_shard, shard_summary):
        with pytest.raises(InputError, match=match) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0)
    refused(path, "is missing; make it again")
    write_shard(path, shard())
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "is damaged .*; delete it and make it again")
    path.write_bytes(b"no safetensors at all" * 20)
    refused(path, "is damaged")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0)
    write_shard(path, shard())
    tensors, metadata = read_tensors(path)
    card = json.loads(metadata["quasinat"])

    def write(changed: dict[str, object], parts: dict[str, Tensor] = tensors) -> None:
        write_tensors(path, parts, {"quasinat": json.dumps(card | changed)})

    write_tensors(path, tensors)
    refused(path, "is no shard of images; pass the folder of whole shards")
    for text in ("not JSON", "[]", "{}"):
        write_tensors(path, tensors, {"quasinat": text})
        refused(path, "is no shard of images")
    write({"kind": "layer"})
    refused(path, "is no shard of images")
    write({"schema": 99})
    refused(path, "has schema 99, this version reads 1")
    for names in (["a", "b"], ["a", "b", 3], "abc"):
        write({"names": names})
        refused(path, "is no shard of images")
    for name in ("../a", "/a", "a//b", "a/../b", "", ".", "a\\b", "C:/a", "a\0"):
        write({"names": ["a", name, "c"]})
        refused(path, "which is no relative path")
    for changed in (
        {"images": tensors["images"].half()},
        {"images": tensors["images"][0]},
        {"images": tensors["images"][:, :, :, :0]},
        {"labels": tensors["labels"][:2]},
        {"labels": tensors["labels"].float()},
        {"psnr": tensors["psnr"][None]},
    ):
        write({}, tensors | changed)
        refused(path, "its tensors do not fit its 3 names")
    write({}, {"labels": tensors["labels"]})
    refused(path, "its tensors do not fit")


def test_a_folder_of_shards_is_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = [shard(3), shard(2, first=3, size=(7, 7)), shard(1, first=5)]
    for number, part in enumerate(shards):
        write_shard(tmp_path / shard_name(number), part)
    loads: list[str] = []
    module = importlib.import_module("quasinat.data.shards")
    monkeypatch.setattr(module, "read_shard", lambda path: loads.append(path.name) or read_shard(path))
    source = shard_folder(tmp_path)
    assert source.names == [f"a/{index}.jpg" for index in range(6)]
    assert source.labels is not None
    assert source.labels.tolist() == list(range(6))
    assert [source.size(index) for index in range(6)] == [(5, 6)] * 3 + [(7, 7)] * 2 + [(5, 6)]
    assert not loads
    for index in range(6):
        part, row = ((0, index), (1, index - 3), (2, 0))[(index > 2) + (index > 4)]
        assert source.read(index, 3).equal(shards[part].images[row])
    assert loads == [shard_name(0), shard_name(1), shard_name(2)]
    assert source.read(0, 1).shape == (1, 5, 6)


def test_labels_are_known_of_all_or_none(tmp_path: Path) -> None:
    write_shard(tmp_path / shard_name(0), shard())
    write_shard(tmp_path / shard_name(1), Shard(torch.rand(1, 3, 4, 4), ("z",)))
    assert shard_folder(tmp_path).labels is None


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / shard_name(0), shard())
    write_shard(tmp_path / shard_name(2), shard())
    with pytest.raises(InputError, match=r"shard-00001\.safetensors is missing; run the command"):
        shard_folder(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5])
def test_values_outside_the_range_are_named(tmp_path: Path, value: float) -> None:
    images = torch.rand(3, 1, 4, 4)
    images[1, 0, 2, 2] = value
    write_shard(tmp_path / shard_name(0), Shard(images, ("a", "b", "c")))
    source = shard_folder(tmp_path)
    source.read(0, 1)
    source.read(2, 1)
    with pytest.raises(InputError, match=r"b in .* has values from .*, not in \[0, 1\]; make it again"):
        source.read(1, 1)


def test_cifar10_has_names_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    pixels = official(folder, monkeypatch)
    source = cifar10_parts(folder, "test")
    assert source.names[:3] == ["airplane/00000", "automobile/00001", "bird/00002"]
    assert source.labels is not None
    assert source.labels.tolist() == [index % 10 for index in range(12)]
    assert source.size(11) == (32, 32)
    assert source.read(11, 3).equal(pixels[11].float() / 255)
    assert source.read(11, 1).shape == (1, 32, 32)
    train = cifar10_parts(folder, "train")
    assert len(train.names) == len(train.labels) == 60  # type: ignore[arg-type]
    assert train.names[12].startswith("bird/00012")
    for root in (tmp_path, folder):
        for split, count in ((None, 12), ("test", 12), ("train", 60)):
            found = open_source(root, split)
            assert (found.kind, len(found.names)) == ("cifar10", count)


def test_the_kind_is_recognised(tmp_path: Path) -> None:
    save(tmp_path / "tree" / "a" / "1.png")
    write_shard(tmp_path / "shards" / shard_name(0), shard())
    assert open_source(tmp_path / "tree").kind == "tree"
    source = open_source(tmp_path / "shards")
    assert isinstance(source, Parts)
    assert source.kind == "shards"
    with pytest.raises(UsageError, match=r"--split test is of CIFAR-10, and .* holds image files; leave it out"):
        open_source(tmp_path / "tree", "test")


def test_what_cannot_be_recognised_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; check the path"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"1\.png is a file; pass the folder that holds it"):
        open_source(save(tmp_path / "1.png"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(InputError, match="holds no image files, no CIFAR-10 batches, no shards; pass a folder"):
        open_source(tmp_path / "empty")
    write_shard(tmp_path / shard_name(0), shard())
    with pytest.raises(
        InputError, match=r"holds image files and shards, so it is not clear .*; pass a folder with one"
    ):
        open_source(tmp_path)
    official(tmp_path / "cifar-10-batches-py", monkeypatch)
    with pytest.raises(InputError, match="holds image files and CIFAR-10 batches and shards"):
        open_source(tmp_path)
    with pytest.raises(UsageError, match="has no split 'trian'; did you mean 'train'"):
        open_source(tmp_path, "trian")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(InputError, match="data_batch_3 is missing; fetch"):
        open_source(tmp_path / "cifar-10-batches-py", "train")
