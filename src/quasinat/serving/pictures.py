"""From the bytes of a request to pixels, and from T(x) to the bytes of an answer."""

import io
import warnings
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from quasinat.arrays import Image
from quasinat.data.image_files import CONVERSIONS, in_mode, pixels
from quasinat.data.image_tree import png_bytes, to_8_bits
from quasinat.errors import InputError, QuasinatError
from quasinat.serving.header import picture_header

_NAME = Path("the image")  # what messages call it
_SCANS = 100  # of a JPEG image; each takes as long as all its pixels do, and the usual progressive one has ten


def decode(
    content: bytes, channels: int, *, max_pixels: int, least_side: int
) -> UInt8[Tensor, "channels height width"]:
    """The pixels of an image file, grey or RGB as the 1 or 3 `channels` ask; transparency over white.

    EXIF turns are not applied; of an animation it is the first picture. The size is looked up in the header, and
    nothing is decoded of an image that is too large or too small.

    Raises:
        InputError: no image, damaged, of an unknown format, too large or too small, or of more than 8 bits.
    """
    from PIL import Image as Pillow

    if not content:
        raise InputError("the body is empty", "send the bytes of an image file")
    header = picture_header(content)
    size = f"{header.height} x {header.width} pixels"
    if header.height * header.width > max_pixels:
        raise InputError(f"the image has {size}, more than {max_pixels} in all", "scale it down")
    if min(header.height, header.width) < least_side:
        raise InputError(f"the image has {size}, fewer than {least_side} a side", "send a larger one")
    if header.format == "JPEG" and content.count(b"\xff\xda") > _SCANS:
        raise InputError(f"the image has more than {_SCANS} scans", "save it again as a baseline JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow makes do with, it decodes
            with Pillow.open(io.BytesIO(content), formats=(header.format.upper(),)) as picture:
                if picture.size != (header.width, header.height):
                    raise InputError(f"the image is not of the {size} that its header says", "save it again")
                picture.load()
                return pixels(in_mode(picture, _NAME, CONVERSIONS[channels]))
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
