"""WebDataset tars: consecutive members `KEY.SUFFIX` with the same key are one sample."""

import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from quasinat.data.image_files import SUFFIXES
from quasinat.data.sample import Sample, stays_inside
from quasinat.data.unpacking import most_unpacked, unpacked
from quasinat.errors import InputError

IMAGE = "png"  # the suffix that images are written with
# What else a header can make the standard library raise: sizes beyond any file, headers of headers without end.
DAMAGE = (EOFError, OSError, OverflowError, RecursionError, ValueError)


def read_tar(content: bytes, name: str) -> list[Sample]:
    """The samples of a tar, in its order; the first member of a sample with an image's suffix is its image.

    Members that are no plain files (folders, links, devices) are passed over; nothing is unpacked onto a disk.

    Args:
        content: of the file; compressed by gzip, bzip2 or xz, or not.
        name: what messages call it.

    Raises:
        InputError: it is damaged or no tar, unpacks to too much, or a member's name leads out of a folder or is there
            twice.
    """
    found: list[tuple[str, dict[str, bytes]]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(_plain(content, name)), mode="r:") as tar:
            for member in tar:
                if member.issparse():
                    raise ValueError("it holds a file with holes")
                file = tar.extractfile(member) if member.isfile() else None
                if file is None:
                    continue
                key, suffix = _split(member.name)
                _check(member.name, key, name)
                if not found or found[-1][0] != key:
                    found.append((key, {}))
                if suffix in found[-1][1]:
                    raise InputError(f"{name} holds {member.name!r} twice", "leave one of them out")
                found[-1][1][suffix] = _whole(file.read(), member.size)
    except InputError:
        raise
    except (tarfile.TarError, lzma.LZMAError, zlib.error, *DAMAGE) as error:
        reason = "empty" if not content else str(error)
        raise InputError(f"{name} is damaged or no tar ({reason})", "make it again, or leave it out") from None
    return [_sample(key, parts) for key, parts in found]


def _plain(content: bytes, name: str) -> bytes:
    """The tar without its compression."""
    most = most_unpacked(content)
    plain = unpacked(content, most)
    if plain is not content and len(plain) > most:
        raise InputError(f"{name} unpacks to more than {most:,} bytes", "store it without compression, or divide it")
    return plain


def _check(member: str, key: str, name: str) -> None:
    if not stays_inside(key):
        raise InputError(f"{name} names a file {member!r}, which is no relative path", "make it again, or leave it out")


def _whole(content: bytes, size: int) -> bytes:
    if len(content) != size:
        raise EOFError("it ends too early")
    return content


def _split(name: str) -> tuple[str, str]:
    """The key, which may have folders in it, and the suffix after the first dot of the last part."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem or path.name)), suffix.lower()


def _sample(key: str, parts: dict[str, bytes]) -> Sample:
    image = next((suffix for suffix in parts if f".{suffix}" in SUFFIXES), None)
    rest = {suffix: content for suffix, content in parts.items() if suffix != image}
    return Sample(key, None if image is None else parts[image], rest)


def write_tar(samples: Sequence[Sample]) -> bytes:
    """The tar of samples whose images are PNG files; equal samples make equal bytes.

    Raises:
        InputError: a key that is no relative path, as a table may hold.
    """
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            image = {} if sample.image is None else {IMAGE: sample.image}
            for suffix, value in {**image, **sample.rest}.items():
                content = _as_bytes(value)
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")  # of no time and no owner
                _check(member.name, member.name, "the tar")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _as_bytes(value: Any) -> bytes:
    """A value of a table as a file: bytes as they are, text as UTF-8, anything else as JSON."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str).encode()
