"""Image files of every format, small ones that claim to be huge, and what memory reading them takes."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLEARED = Path("/proc/self/clear_refs")
measures_memory = pytest.mark.skipif(not CLEARED.exists(), reason="needs Linux's measure of memory")
SAVED = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG"},
    "progressive": {"format": "JPEG", "progressive": True},
    "webp": {"format": "WebP"},
    "lossless": {"format": "WebP", "lossless": True},
    "bmp": {"format": "BMP"},
}


def saved(picture: Image.Image, kind: str) -> bytes:
    """A picture as a file of one of the kinds of `SAVED`."""
    file = io.BytesIO()
    picture.save(file, **SAVED[kind])
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_bomb(side: int) -> bytes:
    """A whole PNG file of side x side black RGB pixels: some thousandth of the bytes that it decodes to."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + 3 * side)) for _ in range(side)]
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"".join([*rows, packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """A file of each format that claims 64 million pixels or more."""
    small = Image.new("RGB", (16, 16))
    jpeg, webp, bmp = (bytearray(saved(small, kind)) for kind in ("jpeg", "webp", "bmp"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    side = (16383 - 1).to_bytes(3, "little")
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + side + side
    extended = b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(webp) - 12) + b"WEBP" + canvas + webp[12:]
    bmp[18:26] = struct.pack("<ii", 30000, 30000)
    return {"png": png_bomb(8000), "jpeg": bytes(jpeg), "webp": bytes(extended), "bmp": bytes(bmp)}


def picture(width: int = 37, height: int = 23, mode: str = "RGB") -> Image.Image:
    """Noise."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = saved(picture(), "progressive")
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + content[-2:]


def most_memory(start: bool) -> int:
    """Bytes of memory that this process held at most since the start of the measurement."""
    if start:
        CLEARED.write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
