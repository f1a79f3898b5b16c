"""From the bytes of a request to pixels, and from T(x) to the bytes of an answer."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import UInt8
from torch import Tensor

from quasinat.arrays import Image
from quasinat.data.image_files import CONVERSIONS, in_mode, pixels
from quasinat.data.image_tree import png_bytes, to_8_bits
from quasinat.errors import InputError, QuasinatError
from quasinat.serving.header import picture_header

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

NAME = Path("the image")  # what messages call it
_SCANS = 100  # of a JPEG image; each takes as long as all its pixels do, and the usual progressive one has ten
_SCANNED = 2**29  # pixels times scans: seconds


def decode(
    content: bytes, channels: int, *, max_pixels: int, least_side: int
) -> UInt8[Tensor, "channels height width"]:
    """The pixels of an image file, grey or RGB as the 1 or 3 `channels` ask; transparency over white.

    EXIF turns are not applied; of an animation it is the first picture.

    Raises:
        InputError: as of `opened`; or of more than 8 bits.
    """
    with opened(content, max_pixels=max_pixels, least_side=least_side) as picture:
        picture.load()
        return pixels(in_mode(picture, NAME, CONVERSIONS[channels]))


@contextmanager
def opened(content: bytes, *, max_pixels: int, least_side: int = 1) -> Iterator["Picture"]:
    """The picture in a file, not decoded yet; where that fails within the block, the file is at fault.

    The size is looked up in the header, and nothing is decoded of an image that is too large, too small, or made of so
    many scans that decoding it would take long.

    Raises:
        InputError: no image, damaged, of an unknown format, too large or too small.
    """
    from PIL import Image as Pillow

    header = picture_header(content)
    size, area = f"{header.height} x {header.width} pixels", header.height * header.width
    if area > max_pixels:
        raise InputError(f"the image has {size}, more than {max_pixels} in all", "scale it down")
    if min(header.height, header.width) < least_side:
        raise InputError(f"the image has {size}, fewer than {least_side} a side", "send a larger one")
    most = min(_SCANS, _SCANNED // area)
    if header.format == "JPEG" and content.count(b"\xff\xda") > max(1, most):
        raise InputError(f"the image has more than {most} scans", "save it again as a baseline JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow makes do with, it decodes
            with Pillow.open(io.BytesIO(content), formats=(header.format.upper(),)) as picture:
                if picture.size != (header.width, header.height):
                    raise InputError(f"the image is not of the {size} that its header says", "save it again")
                yield picture
    except QuasinatError:
        raise
    except Pillow.UnidentifiedImageError:  # whose message is an object's address
        raise InputError(f"the {header.format} image is damaged in its header", "save it again") from None
    except Exception as error:  # whatever a decoder trips over, the file is at fault
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the image cannot be decoded ({reason})", "save it again, and send the whole file") from None


def encode(image: Image) -> bytes:
    """The PNG file of an image `C H W` in [0, 1]: round(255 x)."""
    return png_bytes(to_8_bits(image[None])[0])
