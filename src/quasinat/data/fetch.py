"""The image sets that can be fetched: where their archives are, what they hold, and their digests."""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from quasinat.data.cifar10 import FOLDER
from quasinat.data.download import download
from quasinat.data.tars import DAMAGE
from quasinat.errors import InputError
from quasinat.files import write_atomically

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_BYTES = 170_498_071
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_FILES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
"""The MD5 of each file in the archive, as the data set's page has them."""
LARGEST = 2**26  # bytes of one of them at most; a batch has 31,035,704


def fetch_cifar10(
    dest: Path,
    *,
    url: str = CIFAR10_URL,
    sha256: str = CIFAR10_SHA256,
    files: Mapping[str, str] = CIFAR10_FILES,
    report: Callable[[int], None] | None = None,
) -> Path:
    """Downloads CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html) and unpacks it; the folder of its batches.

    What is there and whole is left alone. The archive is removed once its files are unpacked.

    Args:
        dest: the folder to put `cifar-10-batches-py` into.
        url: of the archive, or of a copy of it.
        sha256: of the archive.
        files: the MD5 of each file in it.
        report: called with the bytes that have come in.

    Raises:
        InputError, OutputError: see `download`; an archive that lacks a file.
    """
    folder = dest / FOLDER
    if not missing(folder, files):
        return folder
    archive = download(url, dest / "cifar-10-python.tar.gz", sha256, most=CIFAR10_BYTES, report=report)
    unpack(archive, folder, files)
    archive.unlink()
    return folder


def missing(folder: Path, files: Mapping[str, str] = CIFAR10_FILES) -> list[str]:
    """The files that are not there, or not as published."""
    return [name for name, wanted in files.items() if not _is(folder / name, wanted)]


def unpack(archive: Path, folder: Path, files: Mapping[str, str] = CIFAR10_FILES) -> None:
    """Writes the known files of an archive, and no other, each whole or not at all, after its digest is checked.

    They go where their known names say, whatever the archive says; links in it are not followed.

    Raises:
        InputError: it is no archive, or one of the files is not in it as published.
        OutputError: a file cannot be written.
    """
    remedy = "remove it and run the command again"
    for name, content in _contents(archive, list(files), remedy):
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != files[name]:
            raise InputError(f"{archive} holds another {name} than the published one", remedy)
        write_atomically(folder / name, partial(_put, content))


def _contents(archive: Path, names: list[str], remedy: str) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive, "r:gz") as held:
            for name in names:
                member = held.getmember(f"{FOLDER}/{name}")
                if not member.isfile() or member.issparse() or member.size > LARGEST:
                    raise KeyError(f"{name} is no file of at most {LARGEST} bytes")
                file = held.extractfile(member)
                yield name, b"" if file is None else file.read()
    except (tarfile.TarError, zlib.error, LookupError, *DAMAGE) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{archive} is no intact archive of CIFAR-10 ({error})", remedy) from None


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _is(path: Path, wanted: str) -> bool:
    return path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == wanted
