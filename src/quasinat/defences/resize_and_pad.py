"""A random enlargement of the image at a random place of a still larger canvas."""

from typing import ClassVar, Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from quasinat.arrays import Image, Images, ImagesBeyond
from quasinat.attacks.checks import check_count
from quasinat.defences.draws import Seed, generators
from quasinat.defences.image_bounds import check_input, in_range
from quasinat.defences.transformation import Transformation
from quasinat.errors import UsageError, did_you_mean

Interpolation = Literal["nearest", "bilinear"]


def resize_and_pad(
    images: Images,
    *,
    largest: int | None = None,
    interpolation: Interpolation = "nearest",
    fill: float = 0.0,
    keep_size: bool = False,
    seed: Seed = 0,
) -> ImagesBeyond:
    """Each image resized to a random size and padded at random to a fixed, larger one.

    Xie, Wang, Zhang, Ren & Yuille (2018), "Mitigating Adversarial Effects Through Randomization": its layers of random
    resizing and random padding. The shorter side is drawn uniformly from [short, largest), and then the place among all
    those in the canvas. At 299 pixels, with the canvas of 331, that makes their 12528 patterns. Given the draws, the
    gradient is exact.

    Args:
        images: `B C H W` in [0, 1].
        largest: the canvas's shorter side, in pixels; `None` is `enlarged(min(H, W))`, the source's 331 at 299. The
            longer side is in proportion.
        interpolation: "nearest" (pixel i is pixel floor(i old / new)) as in the source's code, or "bilinear".
        fill: the value of the padding, in [0, 1]. The paper pads with zeros, here taken for black; its code pads images
            in [-1, 1] with zeros, which is 0.5 here.
        keep_size: bring the canvas back to `H W`, bilinearly with antialiasing, for what needs images of one size.
        seed: of the sizes and the places; see `draws.Seed`.

    Returns:
        `B C H' W'` in [0, 1], larger than the images, as in the source; `B C H W` with `keep_size`.

    What differs from the source, and why: there all images are square and of one size; here the rule is carried over
    to any size. The mirroring and the averaging over 30 passes of the authors' competition entry are left out, as they
    are in the paper.

    Raises:
        UsageError: an option that is out of range, or a canvas that is no larger than the images.
    """
    _check(largest, interpolation, fill)
    height, width = images.shape[2:]
    short = min(height, width)
    target = enlarged(short) if largest is None else largest
    if target <= short:
        raise UsageError(f"largest is {target} for images of {height} x {width} pixels", f"give at least {short + 1}")
    canvas = _scaled(height, target, short), _scaled(width, target, short)
    padded = [
        _padded(image, _drawn(image, canvas, target, generator), canvas, interpolation, fill)
        for image, generator in zip(images.unbind(), generators(images, seed, "resize_and_pad"), strict=True)
    ]
    placed = torch.stack(padded) if padded else images.new_zeros(0, images.shape[1], *canvas)
    if keep_size:
        placed = F.interpolate(placed, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return in_range(placed)


class ResizeAndPad(Transformation):
    """`resize_and_pad` as a module; its arguments are there.

    Unlike the others of its kind, it gives images that are larger than those it gets, unless `keep_size`: the
    classifier behind it must take both sizes. Its gradient is exact, and needs no name; the identity cannot be named
    for it unless `keep_size`, since sizes differ.
    """

    differentiable: ClassVar[bool] = True

    def __init__(
        self,
        *,
        largest: int | None = None,
        interpolation: Interpolation = "nearest",
        fill: float = 0.0,
        keep_size: bool = False,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        _check(largest, interpolation, fill)
        self.largest = largest
        self.interpolation: Interpolation = interpolation
        self.fill = fill
        self.keep_size = keep_size
        self.seed = seed

    def forward(self, images: Images) -> ImagesBeyond:
        """The images, resized and padded; what is refused is as in `Transformation.forward`."""
        check_input(images, type(self).__name__, self.least_side)
        return self.transform(images)

    def transform(self, images: Images) -> ImagesBeyond:
        """The images, resized and padded."""
        return resize_and_pad(
            images,
            largest=self.largest,
            interpolation=self.interpolation,
            fill=self.fill,
            keep_size=self.keep_size,
            seed=self.seed,
        )


def enlarged(side: int) -> int:
    """The canvas's side for images of a side: 36 / 32 of it up to 36 pixels, as on CIFAR-10; 331 / 299 of it above."""
    return round(side * 36 / 32) if side <= 36 else round(side * 331 / 299)


def _check(largest: int | None, interpolation: str, fill: float) -> None:
    if largest is not None:
        check_count("largest", largest)
    if interpolation not in get_args(Interpolation):
        known = list(get_args(Interpolation))
        raise UsageError(f"unknown interpolation {interpolation!r}", did_you_mean(str(interpolation), known))
    if not 0 <= fill <= 1:
        raise UsageError(f"fill is {fill}", "give a value in [0, 1]")


def _scaled(side: int, numerator: int, denominator: int) -> int:
    """side * numerator / denominator, rounded; never further down for a smaller numerator."""
    return (2 * side * numerator + denominator) // (2 * denominator)


def _drawn(image: Image, canvas: tuple[int, int], target: int, generator: Generator) -> tuple[int, int, int, int]:
    """Height and width of the resized image, and its top and left on the canvas."""
    height, width = image.shape[1:]
    short = min(height, width)
    size = _integer(short, target, generator)
    new = _scaled(height, size, short), _scaled(width, size, short)
    top, left = (_integer(0, room - side + 1, generator) for room, side in zip(canvas, new, strict=True))
    return *new, top, left


def _integer(low: int, high: int, generator: Generator) -> int:
    """Uniform in [low, high)."""
    return int(torch.randint(low, high, (), generator=generator))


def _padded(
    image: Tensor,
    place: tuple[int, int, int, int],
    canvas: tuple[int, int],
    interpolation: Interpolation,
    fill: float,
) -> Tensor:
    height, width, top, left = place
    if interpolation == "nearest":  # in integers, so that no device rounds a pixel's number otherwise
        rows = torch.arange(height, device=image.device) * image.shape[1] // height
        columns = torch.arange(width, device=image.device) * image.shape[2] // width
        resized = image.index_select(1, rows).index_select(2, columns)
    else:
        resized = F.interpolate(image[None], (height, width), mode="bilinear", align_corners=False)[0]
    margins = (left, canvas[1] - width - left, top, canvas[0] - height - top)
    return F.pad(resized, margins, value=fill)
