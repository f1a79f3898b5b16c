"""Compressed bytes to plain ones, no more of them than a limit: what unpacks to more is a bomb, or to be divided."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

UNPACKED = 2**30
"""Bytes that a compressed file of samples may unpack to, where that is more than twice its own."""
XZ_MEMORY = 2**28  # bytes of xz's own tables; its strongest preset takes 65 MB, a file may ask for gigabytes


def most_unpacked(content: bytes) -> int:
    """How many bytes a file of samples may hold, see `UNPACKED`."""
    return max(UNPACKED, 2 * len(content))


def unpacked(content: bytes, most: int) -> bytes:
    """The bytes behind gzip, bzip2 or xz, known by how they begin; bytes of another kind as they are.

    Of more than `most` bytes, `most + 1` are returned.

    Raises:
        EOFError, OSError, zlib.error, lzma.LZMAError: they are damaged.
    """
    unpack = next((unpack for start, unpack in _UNPACKERS.items() if content.startswith(start)), None)
    return content if unpack is None else unpack(content, most + 1)


def _gzip(content: bytes, most: int) -> bytes:
    with gzip.open(io.BytesIO(content)) as file:
        return file.read(most)


def _bzip2(content: bytes, most: int) -> bytes:
    with bz2.open(io.BytesIO(content)) as file:
        return file.read(most)


def _xz(content: bytes, most: int) -> bytes:
    """Stream by stream, as `lzma.open` sets no limit to its memory."""
    made = bytearray()
    while content and len(made) < most:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        made += stream.decompress(content, most - len(made))
        if not stream.eof and len(made) < most:
            raise EOFError("it ends too early")
        content = stream.unused_data.lstrip(b"\0")  # streams are padded with zeros
    return bytes(made)


_UNPACKERS: dict[bytes, Callable[[bytes, int], bytes]] = {b"\x1f\x8b": _gzip, b"BZh": _bzip2, b"\xfd7zXZ": _xz}
