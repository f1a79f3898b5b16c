"""From tensors to PNG data URIs: images, differences, filters, mosaics."""

import base64
import io
import math

import torch
from torch import Tensor

from quasinat.arrays import Filters, Image, Images

AMPLIFICATIONS = (1, 2, 5, 10, 20, 50, 100)


def data_uri(image: Image) -> str:
    """A PNG of one image in [0, 1], grey or RGB, at its own size."""
    return _png(_bytes(image), "L" if image.shape[0] == 1 else "RGB")


def mosaic(images: Images, *, columns: int, scale: int = 1) -> str:
    """A PNG of images in [0, 1] as tiles, each pixel `scale` pixels wide, with transparent gaps of one pixel."""
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    canvas = images.new_zeros(channels + 1, rows * (height + 1) - 1, columns * (width + 1) - 1)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        canvas[:channels, top : top + height, left : left + width] = image
        canvas[channels, top : top + height, left : left + width] = 1
    canvas = canvas.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return _png(_bytes(canvas), "LA" if channels == 1 else "RGBA")


def filter_tiles(filters: Filters) -> Images:
    """Each filter scaled on its own to the full range, zero staying mid-grey."""
    largest = filters.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(filters.dtype).tiny)
    return 0.5 + 0.5 * filters / largest


def amplification(difference: Images) -> int:
    """The largest of some round factors that keeps 99 % of a difference within 0.3 of mid-grey."""
    largest = float(difference.abs().flatten().double().quantile(0.99)) if difference.numel() else 0.0
    return max(factor for factor in AMPLIFICATIONS if factor == 1 or factor * largest <= 0.3)


def difference_image(image: Image, reference: Image, factor: int) -> Image:
    """`factor` times the signed difference, around mid-grey."""
    return (0.5 + factor * (image - reference)).clamp(0, 1)


def psnr(image: Image, reference: Image) -> float | None:
    """The PSNR in dB of two images in [0, 1]; None where they are equal."""
    error = float((image - reference).double().square().mean())
    return 10 * math.log10(1 / error) if error > 0 else None


def _bytes(image: Image) -> Tensor:
    return (image.detach().cpu().double().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)


def _png(pixels: Tensor, mode: str) -> str:
    from PIL import Image as Pillow

    array = pixels.contiguous().numpy()
    picture = Pillow.fromarray(array[:, :, 0] if mode == "L" else array)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
