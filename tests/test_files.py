"""Artefacts are written whole or not at all, and what is damaged is named."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread, Timer
from typing import IO

import numpy as np
import pytest
import torch
from torch import Tensor

from quasinat.errors import InputError, OutputError
from quasinat.files import (
    alone,
    once,
    read_json,
    read_tensors,
    write_atomically,
    write_json,
    write_npz,
    write_tensors,
    write_text,
)

WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "new text"),
    "json": lambda path: write_json(path, {"new": 1}),
    "tensors": lambda path: write_tensors(path, {"new": torch.ones(3)}),
    "npz": lambda path: write_npz(path, {"new": torch.ones(3)}),
}


def break_writing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Every file is cut off half-way, then `error` is raised."""
    whole_text, whole_bytes = Path.write_text, Path.write_bytes

    def half_a_text(path: Path, data: str, encoding: str | None = None) -> int:
        whole_text(path, data[: len(data) // 2], encoding=encoding)
        raise error

    def half_of_bytes(path: Path, data: bytes) -> int:
        whole_bytes(path, data[: len(data) // 2])
        raise error

    def half_an_archive(file: IO[bytes], **arrays: np.ndarray) -> None:
        file.write(b"PK")
        raise error

    monkeypatch.setattr(Path, "write_text", half_a_text)
    monkeypatch.setattr(Path, "write_bytes", half_of_bytes)
    monkeypatch.setattr(np, "savez_compressed", half_an_archive)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing(
    write: Callable[[Path], None], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_writing(monkeypatch, OSError(code, os.strerror(code)))
    with pytest.raises(OutputError, match=r"no space left; free some.* or choose another folder") as caught:
        write(tmp_path / "artefact")
    assert str(tmp_path / "artefact") in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_an_interruption_leaves_nothing(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_writing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "artefact")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_failed_overwrite_keeps_the_old_file(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "artefact"
    path.write_bytes(b"old")
    with monkeypatch.context() as broken:
        break_writing(broken, OSError(errno.ENOSPC, "full"))
        with pytest.raises(OutputError):
            write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write(path)
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text"
    write_text(path, "λ\n")
    assert path.read_bytes() == "λ\n".encode()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*artefact: .*; choose a folder that you may write to"):
        write_text(tmp_path / "file" / "artefact", "text")
    with pytest.raises(OutputError, match=r"cannot write .*; choose a folder"):
        write_text(tmp_path / ("long" * 100), "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder: .*; choose a folder"):
        write_text(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]

    def refuse(path: Path, data: str, encoding: str | None = None) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OutputError, match=r"artefact: Permission denied; choose a folder that you may write to"):
        write_text(tmp_path / "artefact", "text")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "sealed"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied; choose a folder that you may write to"):
        write_text(folder / "artefact", "text")


def test_other_errors_pass_through_and_leave_nothing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "artefact", write)
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"b": [1, 2.5, None], "a": "λ"})
    assert read_json(path) == {"b": [1, 2.5, None], "a": "λ"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path)["a"] == "λ"


def test_bad_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    with pytest.raises(InputError, match=r"value\.json is missing; make it again"):
        read_json(path)
    for text in ("{", "\xff", "nothing"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=r"value\.json is not readable JSON .*; delete it and make it again"):
            read_json(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match=r"value\.json holds no JSON object"):
        read_json(path)
    with pytest.raises(InputError, match="is not readable JSON"):
        read_json(tmp_path)


def test_tensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "tensors"
    tensors = {"a": torch.arange(6).view(2, 3).T, "b": torch.rand(2, requires_grad=True)}
    write_tensors(path, tensors, {"card": "λ"})
    found, metadata = read_tensors(path)
    assert metadata == {"card": "λ"}
    assert found["a"].equal(tensors["a"])
    assert found["b"].equal(tensors["b"].detach())
    write_tensors(path, tensors)
    assert read_tensors(path)[1] == {}
    with pytest.raises(InputError, match="is missing"):
        read_tensors(tmp_path)


def test_arrays_come_back_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "a" / "outcomes.npz"
    tensors: dict[str, Tensor] = {
        "square/linf:8/255": torch.tensor([True, False, True]),
        "labels": torch.arange(3),
        "values": torch.rand(2, 3, requires_grad=True).T,
        "none": torch.zeros(0, dtype=torch.bool),
    }
    write_npz(path, tensors)
    with np.load(path, allow_pickle=False) as file:
        found = dict(file)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert (found[name] == tensor.detach().numpy()).all()
        assert (found[name].dtype, found[name].shape) == (tensor.detach().numpy().dtype, tuple(tensor.shape))
    first = path.read_bytes()
    write_npz(path, tensors)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_made_once_however_many_come_for_it(tmp_path: Path) -> None:
    path, made = tmp_path / "made", []

    def make() -> None:
        made.append(1)
        time.sleep(0.3)
        path.write_text("whole", encoding="utf-8")

    threads = [Thread(target=once, args=(path, make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert [found.name for found in tmp_path.iterdir()] == ["made"]


def test_a_process_that_dies_lets_the_next_one_in(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from quasinat.files import alone\n"
        "with alone(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        Timer(0.3, process.kill).start()
        began = time.monotonic()
        with alone(tmp_path / "file"):
            waited = time.monotonic() - began
    assert 0.2 < waited < 30


def test_what_fails_is_left_to_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        once(tmp_path / "file", lambda: write_text(tmp_path / "file", str(1 / 0)))
    once(tmp_path / "file", lambda: write_text(tmp_path / "file", "made"))
    assert (tmp_path / "file").read_text(encoding="utf-8") == "made"
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"), alone(tmp_path / "plain" / "file"):
        pass
