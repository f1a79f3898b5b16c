"""Compression as a JPEG file, and back."""

from io import BytesIO
from typing import Literal, get_args

import torch
from torch import Tensor

from quasinat.arrays import Image, Images
from quasinat.defences.transformation import Transformation
from quasinat.errors import UsageError, did_you_mean

Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]


def jpeg(images: Images, *, quality: int = 75, subsampling: Subsampling = "4:2:0") -> Images:
    """What is left of the images after a JPEG file of each, written and read in memory by Pillow (libjpeg).

    Dziugaite, Ghahramani & Roy (2016), Das et al. (2017), and Guo et al. (2018), section 4.1, from whom the quality is.
    Images of one channel are coded as grey, those of three as RGB, any others channel by channel as grey.
    The derivative is zero almost everywhere.

    Args:
        images: `B C H W` in [0, 1], on any device; the codec runs on the CPU.
        quality: libjpeg's scale, from 1 to 100.
        subsampling: of the two colour channels: halved both ways ("4:2:0", Pillow's own choice, which the source
            leaves to it), in width only, or not at all.

    What differs from the source, and why: values are rounded to the nearest of 256 levels before they are coded; the
    source's code cuts them off, which darkens the image by half a level.

    Raises:
        UsageError: a quality or a subsampling that does not exist.
    """
    _check(quality, subsampling)
    return torch.stack([_coded(image, quality, subsampling) for image in images]) if len(images) else images.clone()


class Jpeg(Transformation):
    """`jpeg` as a module; its arguments are there. To differentiate it, name a gradient."""

    def __init__(self, *, quality: int = 75, subsampling: Subsampling = "4:2:0") -> None:
        super().__init__()
        _check(quality, subsampling)
        self.quality = quality
        self.subsampling: Subsampling = subsampling

    def transform(self, images: Images) -> Images:
        """The images, compressed and decompressed."""
        return jpeg(images, quality=self.quality, subsampling=self.subsampling)


def _check(quality: int, subsampling: str) -> None:
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}", "give from 1 to 100")
    if subsampling not in get_args(Subsampling):
        known = list(get_args(Subsampling))
        raise UsageError(f"unknown subsampling {subsampling!r}", did_you_mean(str(subsampling), known))


def _coded(image: Image, quality: int, subsampling: Subsampling) -> Image:
    pixels = (255 * image.detach()).round().to("cpu", torch.uint8)
    if len(image) == 3:
        decoded = _round_trip(pixels.permute(1, 2, 0), quality, subsampling).permute(2, 0, 1)
    else:
        decoded = torch.stack([_round_trip(plane, quality, subsampling) for plane in pixels])
    return decoded.to(image.device, image.dtype) / 255


def _round_trip(pixels: Tensor, quality: int, subsampling: Subsampling) -> Tensor:
    """What the JPEG file of 8-bit pixels, `H W` or `H W 3`, holds."""
    import numpy as np
    from PIL import Image as Picture

    file = BytesIO()
    Picture.fromarray(pixels.contiguous().numpy()).save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Picture.open(file) as picture:
        return torch.from_numpy(np.array(picture))
