"""CIFAR-10: official batches are read as data; anything else is named and refused, nothing is executed."""

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quasinat.data import cifar10, cifar10_dataset
from quasinat.data.plain_pickle import PlainPickleError, read_plain_pickle
from quasinat.errors import InputError, UsageError

from .official_batch import array, batch, integers, text

LABELS = [index % 10 for index in range(10_000)]


@pytest.fixture(scope="module")
def pixels() -> bytes:
    values = torch.randint(256, (10_000 * 3072,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return values.numpy().tobytes()


@pytest.fixture
def root(tmp_path: Path, pixels: bytes) -> Path:
    """A folder with a test batch only."""
    (tmp_path / "cifar-10-batches-py").mkdir()
    content = batch(array(pixels, (10_000, 3072)), integers(LABELS))
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    return tmp_path


def test_an_official_batch_is_read(root: Path, pixels: bytes) -> None:
    images, labels = cifar10(root, split="test")
    assert images.shape == (10_000, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.tolist() == LABELS
    last = torch.tensor(list(pixels[-3072:])).view(3, 32, 32) / 255
    torch.testing.assert_close(images[-1], last)


def test_the_folder_itself_is_a_root_too(root: Path) -> None:
    assert len(cifar10(str(root / "cifar-10-batches-py"), "test")[1]) == 10_000


def test_a_missing_batch_is_named(root: Path) -> None:
    for given in (root, root / "cifar-10-batches-py"):
        with pytest.raises(InputError, match=rf"data_batch_1 is missing; .*`quasinat data cifar10 --dest {root}`"):
            cifar10(given)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    command = f"quasinat data cifar10 --dest '{tmp_path / 'no where'}'"
    with pytest.raises(InputError, match=rf"no folder cifar-10-batches-py .*; fetch it with `{command}`"):
        cifar10(tmp_path / "no where")


def test_another_split_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'train'"):
        cifar10(root, "trian")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:1000],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"not a pickle at all",
        lambda content: b"\x1f\x8b" + content,
        lambda content: content[:3] + b"\xff" * 8 + content[11:],
        lambda content: b"\x80\x02N.",
        lambda content: b"\x80\x02}.",
    ],
    ids=["empty", "start", "half", "last-byte", "text", "gzip", "garbled", "none", "empty-dict"],
)
def test_damage_is_one_line_with_the_file_and_the_remedy(root: Path, damage: Callable[[bytes], bytes]) -> None:
    path = root / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"test_batch is no (intact )?CIFAR-10 batch .*; fetch it with") as caught:
        cifar10(root, "test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (lambda pixels: array(pixels[:3072], (1, 3072)), LABELS, "no 10000x3072 8-bit array"),
        (lambda pixels: array(pixels[:-1], (10_000, 3072)), LABELS, "no 10000x3072 8-bit array"),
        (lambda pixels: array(pixels, (3072, 10_000)), LABELS, "no 10000x3072 8-bit array"),
        (lambda pixels: array(pixels, (10_000, 3072), b"f4"), LABELS, "no 10000x3072 8-bit array"),
        (lambda pixels: text(pixels), LABELS, "no 10000x3072 8-bit array"),
        (lambda pixels: array(pixels, (10_000, 3072)), LABELS[1:], "no 10000 labels"),
        (lambda pixels: array(pixels, (10_000, 3072)), [*LABELS[1:], 10], "labels from 0 to 9"),
        (lambda pixels: array(pixels, (10_000, 3072)), [*LABELS[1:], -1], "labels from 0 to 9"),
    ],
)
def test_wrong_contents_are_refused(
    root: Path, pixels: bytes, data: Callable[[bytes], bytes], labels: list[int], message: str
) -> None:
    content = batch(data(pixels), integers(labels))
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(InputError, match=message):
        cifar10(root, "test")


class _Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bomb_is_refused_and_does_not_go_off(root: Path, tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "it-ran"
    content = pickle.dumps({"data": _Bomb(f"touch {trace}"), "labels": LABELS}, protocol)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(InputError, match="no intact CIFAR-10 batch"):
        cifar10(root, "test")
    assert not trace.exists()


def test_plain_data_is_read_as_pickle_reads_it() -> None:
    value = {
        "a": [1, 2, 300, 70_000, -5],
        "b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "c": [None, True, False, "x"],
    }
    value["d"] = value["a"]  # through the memo
    assert read_plain_pickle(pickle.dumps(value, 2), frozenset()) == value


@pytest.mark.parametrize("key", [b")" + b"\x85" * 10_000, b"]", b"K\x01", b"N"], ids=["deep", "list", "int", "none"])
def test_a_key_that_is_no_text_is_refused(key: bytes) -> None:
    for content in (b"\x80\x02}" + key + b"Ns.", b"\x80\x02}(" + key + b"Nu."):
        with pytest.raises(PlainPickleError, match="corrupt"):
            read_plain_pickle(content, frozenset())


def test_random_damage_never_escapes_as_another_error(generator: torch.Generator) -> None:
    content = batch(array(bytes(64), (8, 8)), integers(list(range(8))))
    names = frozenset({"numpy dtype"})
    for _ in range(500):
        damaged = bytearray(content)
        place = int(torch.randint(len(damaged), (), generator=generator))
        damaged[place] = int(torch.randint(256, (), generator=generator))
        with contextlib.suppress(PlainPickleError):
            read_plain_pickle(bytes(damaged), names)


def test_the_real_set(real_data: Path) -> None:
    dataset = cifar10_dataset(real_data)
    assert dataset.train_images.shape == (50_000, 3, 32, 32)
    assert dataset.test_images.shape == (10_000, 3, 32, 32)
    assert dataset.train_labels.bincount().tolist() == [5_000] * 10
    assert dataset.test_labels.bincount().tolist() == [1_000] * 10
    assert dataset.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert dataset.test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert dataset.classes[6] == "frog"
    mean = dataset.train_images.mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=1e-4)
