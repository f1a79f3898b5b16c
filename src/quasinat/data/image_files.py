"""From an image file to 8-bit pixels: reading, resizing, cropping; every failure names the file."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor

from quasinat.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {"rgb": "RGB", "grey": "L"}
CONVERSIONS = {1: "grey", 3: "rgb"}  # by the channels that are asked for
_CONVERTIBLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB")
# Those of the suffixes. Pillow knows more, and for one of them, EPS, it runs an interpreter on the file.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def read_picture(path: Path, content: bytes | None = None) -> "Picture":
    """Decodes an image file whole (of an animation, the first frame), as it is stored: EXIF turns are not applied.

    What its first bytes say decides its format, of `FORMATS`, not its suffix.

    Args:
        path: the file, or what messages call it where its `content` is given.

    Raises:
        InputError: not an image, truncated, or so large that it could be a decompression bomb.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, which is not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path if content is None else io.BytesIO(content), formats=FORMATS) as picture:
                picture.load()
                return picture.copy()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            problem = f"{path} has more pixels than are safe to decode ({Image.MAX_IMAGE_PIXELS})"
            raise InputError(problem, "scale it down, or leave it out") from None
        except Exception as error:  # a damaged file makes the decoders raise whatever there is
            reason = _one_line(error)
            raise InputError(f"{path} cannot be read as an image ({reason})", "replace it, or leave it out") from None


def _one_line(error: BaseException) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "no known image format"
    return " ".join(str(error).split()) or type(error).__name__


def in_mode(picture: "Picture", path: Path, convert: str | None) -> "Picture":
    """The picture in the mode that `convert` names ("rgb" or "grey"), transparency over white; as it is if none.

    Raises:
        InputError: none is named and the picture is not RGB, or it cannot be converted from its mode.
    """
    from PIL import Image

    if convert is None:
        if picture.mode == "RGB":
            return picture
        problem = f"{path} has colour mode {picture.mode}, not RGB"
        raise InputError(problem, 'convert all images with convert="rgb" or "grey" (--convert rgb|grey)')
    if picture.mode not in _CONVERTIBLE:
        problem = f"{path} has colour mode {picture.mode}, more than 8 bits per pixel and channel"
        raise InputError(problem, "save it as an 8-bit image")
    try:
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        return picture.convert("RGB").convert(MODES[convert])
    except Exception as error:  # such as of a palette or a transparency that does not fit the pixels
        reason = _one_line(error)
        raise InputError(f"{path} cannot be converted ({reason})", "replace it, or leave it out") from None


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


def centre_square(picture: "Picture", size: int) -> "Picture":
    """The middle `size` x `size` pixels of the picture, scaled so that its short side has `size` pixels.

    What has to be enlarged is cropped to its middle square first, as a thin picture would become a very large one.
    """
    if min(picture.size) < size:
        picture = crop_centre(picture, min(picture.size))
    return crop_centre(scale_short_side(picture, size), size)


def pixels(picture: "Picture") -> UInt8[Tensor, "channels height width"]:
    """The 8-bit pixels of a picture of mode L or RGB."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()
