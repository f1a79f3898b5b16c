"""The size of an image from the head of its file, before anything is decoded or a decoder is even asked."""

import struct
from dataclasses import dataclass

from quasinat.errors import InputError

FORMATS = ("PNG", "JPEG", "WebP", "BMP")
_SEGMENTS = 1000  # of a JPEG file before its frame; cameras write a dozen
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # among the markers 0xC0 to 0xCF
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment


@dataclass(frozen=True)
class Header:
    """The format of an image file, one of `FORMATS`, and its height and width in pixels."""

    format: str
    height: int
    width: int


def picture_header(content: bytes) -> Header:
    """What the first bytes of a file say; its name and media type play no part.

    (PNG: ISO/IEC 15948, section 11.2.2; JPEG: ITU-T T.81, annex B; WebP: RFC 9649, sections 2.4 to 2.7, with RFC 6386,
    section 9.1, for lossy ones.)

    Raises:
        InputError: nothing, another format, or a head that is cut off or without a size.
    """
    if not content:
        raise InputError("the body is empty", "send the bytes of an image file")
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", content, 16)
            header = Header("PNG", height, width)
        elif content.startswith(b"\xff\xd8\xff"):
            header = Header("JPEG", *_jpeg(content))
        elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            header = Header("WebP", *_webp(content))
        elif content.startswith(b"BM"):
            header = Header("BMP", *_bmp(content))
        else:
            raise InputError("the file is no image of a known format", f"send a {', '.join(FORMATS[:-1])} or BMP file")
    except struct.error:
        raise InputError("the image ends within its header", "send the whole file") from None
    if header.height < 1 or header.width < 1:
        raise InputError(f"the {header.format} image has no size in its header", "save it again")
    return header


def _jpeg(content: bytes) -> tuple[int, int]:
    """Height and width of the frame, which comes before the first scan; zeros if there is none."""
    at = 2
    for _ in range(_SEGMENTS):
        start, marker = struct.unpack_from("BB", content, at)
        if start != 0xFF or marker in (0xD9, 0xDA):
            break
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return height, width
        else:
            at += 2 + struct.unpack_from(">H", content, at + 2)[0]
    return 0, 0


def _webp(content: bytes) -> tuple[int, int]:
    """Height and width of an extended, a lossless or a lossy file; zeros of none of these."""
    kind = content[12:16]
    if kind == b"VP8X":
        low, high = struct.unpack_from("<IH", content, 24)
        return (low >> 24 | high << 8) + 1, (low & 0xFFFFFF) + 1
    if kind == b"VP8L":
        mark, bits = struct.unpack_from("<BI", content, 20)
        return ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1) if mark == 0x2F else (0, 0)
    if kind == b"VP8 ":
        mark, width, height = struct.unpack_from("<3sHH", content, 23)
        return (height & 0x3FFF, width & 0x3FFF) if mark == b"\x9d\x01\x2a" else (0, 0)
    return 0, 0


def _bmp(content: bytes) -> tuple[int, int]:
    """Height and width; a height below zero means rows from the top."""
    (size,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", content, 18)
    return abs(height), width
