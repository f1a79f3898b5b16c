"""Sizes from headers, pixels from files: as Pillow has them, and nothing decoded that is too large."""

import contextlib
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from quasinat.errors import InputError
from quasinat.serving.header import Header, picture_header
from quasinat.serving.pictures import decode, encode
from serving.files import SAVED, bombs, many_scans, measures_memory, most_memory, picture, saved
from serving.service import eight_bits, opened

LIMITS = {"max_pixels": 2**20, "least_side": 5}


@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize("size", [(37, 23), (1, 1), (300, 5), (256, 257)])
def test_the_header_says_what_pillow_says(kind: str, size: tuple[int, int]) -> None:
    content = saved(picture(*size), kind)
    header = picture_header(content)
    with Image.open(io.BytesIO(content)) as found:
        assert (found.format.lower(), found.size) == (header.format.lower(), (header.width, header.height))


@pytest.mark.parametrize(
    ("options", "format"),
    [
        ({"exif": b"Exif\0\0" + bytes(500)}, "JPEG"),
        ({"save_all": True, "append_images": [picture(), picture()]}, "WebP"),
        ({"exif": bytes(64)}, "WebP"),
    ],
    ids=["exif", "animated", "extended"],
)
def test_what_lies_before_the_size_is_passed(options: dict, format: str) -> None:
    file = io.BytesIO()
    picture().save(file, format=format, **options)
    header = picture_header(file.getvalue())
    assert (header.width, header.height) == (37, 23)


def header_or_line(content: bytes) -> Header | None:
    """The header; None where there is none, which is said in one line."""
    found: list[Header] = []
    with contextlib.suppress(InputError):
        found.append(picture_header(content))
    if found:
        return found[0]
    with pytest.raises(InputError, match=r"^[^\n]+; [^\n]+$"):
        picture_header(content)
    return None


@pytest.mark.parametrize("kind", SAVED)
def test_a_header_that_is_cut_off_is_one_line(kind: str) -> None:
    content = saved(picture(), kind)
    whole = picture_header(content)
    for length in range(min(len(content), 700)):
        assert header_or_line(content[:length]) in (whole, None)


def test_bytes_of_all_kinds_give_a_header_or_one_line() -> None:
    generator = np.random.default_rng(0)
    heads = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8X", b"RIFF\0\0\0\0WEBPVP8 ", b"BM", b""]
    for trial in range(600):
        content = heads[trial % len(heads)] + generator.bytes(int(generator.integers(0, 60)))
        header = header_or_line(content)
        assert header is None or min(header.height, header.width) >= 1


@pytest.mark.parametrize("kind", SAVED)
def test_pixels_are_pillows(kind: str) -> None:
    content = saved(picture(), kind)
    colour = np.asarray(opened(content).convert("RGB"))
    assert np.array_equal(decode(content, 3, **LIMITS).permute(1, 2, 0).numpy(), colour)
    assert np.array_equal(decode(content, 1, **LIMITS)[0].numpy(), np.asarray(opened(content).convert("L")))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_every_mode_becomes_that_of_the_layer(mode: str) -> None:
    content = saved(picture(mode=mode), "png")
    assert decode(content, 3, **LIMITS).shape == (3, 23, 37)
    assert decode(content, 1, **LIMITS).shape == (1, 23, 37)


def test_transparency_lies_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert bool((decode(saved(clear, "png"), 3, **LIMITS) == 255).all())


def test_what_is_written_is_read_again() -> None:
    for image in eight_bits(3):
        assert decode(encode(image.float() / 255), 3, **LIMITS).equal(image)


@pytest.mark.parametrize("kind", SAVED)
def test_a_file_that_is_cut_off_is_one_line(kind: str) -> None:
    content = saved(picture(), kind)
    with pytest.raises(InputError, match=r"; ") as caught:
        decode(content[: len(content) // 2], 3, **LIMITS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", SAVED)
def test_a_damaged_file_gives_pixels_or_one_line(kind: str) -> None:
    draw = random.Random(0)
    for _ in range(100):
        content = bytearray(saved(picture(), kind))
        for _ in range(draw.choice((1, 2, 20))):
            content[draw.randrange(draw.choice((64, len(content))))] = draw.randrange(256)
        try:
            assert decode(bytes(content), 3, **LIMITS).shape[0] == 3
        except InputError as error:
            said = str(error)
        else:
            said = "pixels"
        assert "\n" not in said
        assert "0x" not in said


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "the body is empty; send the bytes"),
        (b"hello", "no image of a known format; send a PNG, JPEG, WebP or BMP file"),
        (b"GIF89a" + bytes(100), "no image of a known format"),
        (saved(picture(4, 60), "png"), "60 x 4 pixels, fewer than 5 a side; send a larger one"),
        (saved(picture(1025, 1024), "png"), "1024 x 1025 pixels, more than 1048576 in all; scale it down"),
        (many_scans(200), "more than 100 scans; save it again as a baseline JPEG"),
        (saved(picture(), "png")[:29] + bytes(20), "the PNG image is damaged in its header"),
        (b"\xff\xd8\xff\xd9" + bytes(50), "no size in its header"),
    ],
)
def test_what_cannot_be_used_says_why(content: bytes, part: str) -> None:
    with pytest.raises(InputError, match=part):
        decode(content, 3, **LIMITS)


def test_sixteen_bits_are_not_cut_to_eight() -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((9, 9), 40000, dtype=np.uint16)).save(file, "PNG")
    with pytest.raises(InputError, match="more than 8 bits"):
        decode(file.getvalue(), 3, **LIMITS)


@measures_memory
def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    files = bombs()
    assert max(map(len, files.values())) < 2**20
    decode(saved(picture(), "png"), 3, **LIMITS)
    before = most_memory(start=True)
    for content in files.values():
        with pytest.raises(InputError, match="more than 1048576 in all"):
            decode(content, 3, **LIMITS)
    assert most_memory(start=False) - before < 4 * 2**20
    with Image.open(io.BytesIO(files["png"])) as bomb:  # that a decoder takes far more, so the measure sees it
        bomb.crop((0, 0, 8000, 2)).load()
    assert most_memory(start=False) - before > 100 * 2**20


def test_grey_and_colour_of_one_image_agree() -> None:
    grey = picture(mode="L")
    assert decode(saved(grey, "png"), 3, **LIMITS).equal(decode(saved(grey, "png"), 1, **LIMITS).expand(3, -1, -1))
    assert decode(saved(grey, "png"), 3, **LIMITS).dtype == torch.uint8
