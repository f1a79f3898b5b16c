"""From an image file to 8-bit pixels: reading, resizing, cropping; every failure names the file."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor

from quasinat.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def read_picture(path: Path) -> "Picture":
    """Decodes an image file whole (of an animation, the first frame), as it is stored: EXIF turns are not applied.

    Raises:
        InputError: not an image, truncated, or so large that it could be a decompression bomb.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as picture:
                picture.load()
                return picture.copy()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            problem = f"{path} has more pixels than are safe to decode ({Image.MAX_IMAGE_PIXELS})"
            raise InputError(problem, "scale it down, or leave it out") from None
        except _DAMAGE as error:
            reason = _one_line(error)
            raise InputError(f"{path} cannot be read as an image ({reason})", "replace it, or leave it out") from None


def _one_line(error: BaseException) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "no known image format"
    return " ".join(str(error).split()) or type(error).__name__


def scale_short_side(picture: "Picture", size: int) -> "Picture":
    """Resizes so that the short side has `size` pixels, the shape kept; Lanczos, which antialiases."""
    from PIL import Image

    width, height = picture.size
    short = min(width, height)
    if short == size:
        return picture
    return picture.resize((round(width * size / short), round(height * size / short)), Image.Resampling.LANCZOS)


def crop_centre(picture: "Picture", size: int) -> "Picture":
    """The middle `size` x `size` pixels."""
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def pixels(picture: "Picture") -> UInt8[Tensor, "channels height width"]:
    """The 8-bit pixels of a picture of mode L or RGB."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()
