"""WebDataset tars: consecutive members `KEY.SUFFIX` with the same key are one sample."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from quasinat.data.image_files import SUFFIXES
from quasinat.data.sample import Sample
from quasinat.errors import InputError

IMAGE = "png"  # the suffix that images are written with


def read_tar(content: bytes, name: str) -> list[Sample]:
    """The samples of a tar, in its order; the first member of a sample with an image's suffix is its image.

    Members that are no plain files are passed over; nothing is unpacked onto a disk.

    Args:
        name: what messages call it.

    Raises:
        InputError: it is damaged or no tar.
    """
    found: list[tuple[str, dict[str, bytes]]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is None:
                    continue
                key, suffix = _split(member.name)
                if not found or found[-1][0] != key:
                    found.append((key, {}))
                found[-1][1][suffix] = _whole(file.read(), member.size)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        reason = "empty" if not content else " ".join(str(error).split())
        raise InputError(f"{name} is damaged or no tar ({reason})", "make it again, or leave it out") from None
    return [_sample(key, parts) for key, parts in found]


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
    """The tar of samples whose images are PNG files; equal samples make equal bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            image = {} if sample.image is None else {IMAGE: sample.image}
            for suffix, value in {**image, **sample.rest}.items():
                content = _as_bytes(value)
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")  # of no time and no owner
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def _as_bytes(value: Any) -> bytes:
    """A value of a table as a file: bytes as they are, text as UTF-8, anything else as JSON."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str).encode()
