"""Writing artefacts whole or not at all: beside the final name first, then renamed."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from quasinat.errors import InputError, OutputError

DEPTH = 100  # of a JSON text that we read; what we write has ten levels at most


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary path beside `path` and renames it to `path` once it is whole.

    Whatever interrupts it (a full disk, Ctrl-C), nothing half-written is left under the final name, nor beside it.

    Raises:
        OutputError: the file system refuses; names the path and what to do.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # what stopped the writing may stop this as well
            temporary.unlink(missing_ok=True)


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError(f"cannot write {path}: no space left", "free some or choose another folder, then rerun")
    reason = error.strerror or str(error)
    return OutputError(f"cannot write {path}: {reason}", "choose a folder that you may write to")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Held by one process at a time that is about to make `path`, of all that see its disk; the others wait.

    Whoever comes in looks whether the file is there by now. Where the system has no such locks, nobody waits.

    Raises:
        OutputError: the folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")  # where somebody has put a link in its place, what that names is not emptied
    except OSError as error:
        raise _output_error(path, error) from error
    with file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, or the process gone
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)


def once(path: Path, make: Callable[[], None]) -> None:
    """Has a file made that is not there, by one process; the others wait for it."""
    if not path.is_file():
        with alone(path):
            if not path.is_file():
                make()


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole or not at all."""
    write_atomically(path, lambda temporary: _discard(temporary.write_text(text, encoding="utf-8")))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes whole or not at all; errors as of `write_atomically`."""
    write_atomically(path, lambda temporary: _discard(temporary.write_bytes(content)))


def _discard(_: object) -> None:
    return None


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=False, allow_nan=False) + "\n")


def parsed_json(text: str | bytes) -> Any:
    """The value that a JSON text of somebody else's holds.

    Raises:
        ValueError: it is none, or is nested more than `DEPTH` deep, which whoever walks it could not do.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEPTH} deep") from None
    level = [value]
    for _ in range(DEPTH):
        level = [part for each in level if isinstance(each, dict | list) for part in _parts(each)]
    if level:
        raise ValueError(f"it is nested more than {DEPTH} deep")
    return value


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def read_json(path: Path) -> dict[str, object]:
    """Reads a JSON object; an InputError names a file that is missing or is none."""
    try:
        value = parsed_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "make it again, or check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})", "delete it and make it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object", "delete it and make it again")
    return value


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file whole or not at all."""
    from safetensors.torch import save

    payload = save({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, dict(metadata) if metadata else None)
    write_atomically(path, lambda temporary: _discard(temporary.write_bytes(payload)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file: its tensors and its metadata. An InputError names one that is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is missing", "make it again, or check the path")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, AttributeError, TypeError, RuntimeError, ValueError) as error:
        # The last four come of a type of numbers that only one of torch and safetensors has.
        raise InputError(f"{path} is damaged ({error})", "delete it and make it again") from None


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes tensors and plain arrays as a compressed NumPy archive, whole or not at all; no pickle reads it."""
    import numpy as np

    values: dict[str, Any] = {
        name: value.detach().cpu().numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **values)

    write_atomically(path, write)
