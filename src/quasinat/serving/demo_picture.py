"""An image file as the demo page takes it: turned as its EXIF says, and scaled down to a small image."""

from quasinat.arrays import Image
from quasinat.data.image_files import CONVERSIONS, in_mode, pixels
from quasinat.serving.header import picture_header
from quasinat.serving.pictures import NAME, opened

DEARER = 3  # times the memory of a JPEG, for each pixel, that the other formats take: they are decoded whole
_QUARTER_TURNS = (5, 6, 7, 8)  # of EXIF's orientations
_FINER = 4  # a photograph is decoded at least so many times as large as it is shown, for Lanczos to choose from


def read_image(content: bytes, channels: int, side: int, max_pixels: int) -> tuple[Image, tuple[int, int]]:
    """The image in a file, `C H W` in [0, 1], and the width and height that it had, turned.

    A JPEG much larger than `side` is decoded to a half, a quarter or an eighth of its size, which libjpeg does from the
    low frequencies of its blocks.

    Args:
        content: of the file.
        channels: 1 or 3; transparent parts lie over white.
        side: the longer side is scaled down to so many pixels, if it has more.
        max_pixels: of the file's image, if it is a JPEG; others may have a third of that. So reading takes at most ten
            bytes for each of `max_pixels` (eight for a progressive JPEG of four colours, 28 a pixel for a WebP).

    Raises:
        InputError: as of `decode`.
    """
    from PIL import ExifTags, ImageOps
    from PIL import Image as Pillow

    most = max_pixels if picture_header(content).format == "JPEG" else max_pixels // DEARER
    with opened(content, max_pixels=most) as file:
        scale = min(1.0, side / max(file.size))
        width, height = (max(1, round(scale * length)) for length in file.size)
        turned = file.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS
        given, smaller = (pair[::-1] if turned else pair for pair in (file.size, (width, height)))
        file.draft(None, (_FINER * width, _FINER * height))
        picture = in_mode(ImageOps.exif_transpose(file), NAME, CONVERSIONS[channels])
        if scale < 1:
            picture = picture.resize(smaller, Pillow.Resampling.LANCZOS)
        return pixels(picture).float() / 255, given
