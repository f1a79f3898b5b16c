"""Non-local means: each pixel becomes the mean of those near it whose surroundings look like its own."""

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from quasinat.arrays import Images
from quasinat.attacks.checks import check_number
from quasinat.defences.cielab import from_lab, to_lab
from quasinat.defences.image_bounds import in_range
from quasinat.defences.transformation import Transformation
from quasinat.errors import InputError, UsageError, did_you_mean

Window = Literal["flat", "gaussian"]
Colour = Literal["lab", "joint"]
WINDOWS, COLOURS = ("flat", "gaussian"), ("lab", "joint")
_ROUNDING = 1e-5  # of a colour that goes to CIELAB and back


def non_local_means(
    images: Images,
    *,
    search: int = 11,
    patch: int = 3,
    strength: float = 4 / 255,
    window: Window = "flat",
    colour: Colour = "lab",
) -> Images:
    """Replaces each pixel p by a weighted mean of the pixels q of the `search` x `search` square around it.

    The weight of q is exp(-d(p, q) / strength^2), where d is the mean, over the `patch` x `patch` squares around p and
    q and over the channels, of the squared difference (Buades, Coll & Morel 2005, "A Non-Local Algorithm for Image
    Denoising", section 3). All channels that are compared together share one weight. Outside the frame the image is its
    own mirror, without repeating the edge.

    Defaults: the "11-3-4" of feature squeezing (Xu, Evans & Qi 2018, "Feature Squeezing"; its public code), which are
    the search window, the template window and `h`, in levels of 255, of OpenCV's `fastNlMeansDenoising` and, for three
    channels, `fastNlMeansDenoisingColored`. The latter's colour space is kept: in CIELAB the lightness is filtered
    alone, then the two colour channels together, all with the same `h`; see `cielab`.

    What differs from the source, and why: OpenCV rounds to 8 bits before and after each step, of which CIELAB alone
    costs about half a level; here nothing is rounded, so that the function is smooth. OpenCV drops weights below
    0.001. With `window="gaussian", colour="joint"` the function is that of scikit-image's `denoise_nl_means` with
    `patch_size=patch`, `patch_distance=search // 2`, `h=strength` and `fast_mode=False`, which searches inside the
    frame only, drops weights below about exp(-5) and approximates exp to some per cent.

    Args:
        images: `B C H W` in [0, 1], with sides above `search // 2 + patch // 2`.
        search: side of the square of pixels that are averaged, in pixels, odd.
        patch: side of the surroundings that are compared, in pixels, odd.
        strength: h, in [0, 1] like the images; the larger, the smoother.
        window: of the surroundings, all alike or with Gaussian weights of deviation (patch - 1) / 4 pixels.
        colour: how images of three channels are filtered: "lab" as above, "joint" all channels together. Images of
            other numbers of channels are always filtered together.

    Raises:
        UsageError: an option that makes no sense.
        InputError: images that are too small.
    """
    _check_options(search, patch, strength, window, colour)
    reach, half = search // 2, patch // 2
    if min(images.shape[2:]) <= reach + half:
        height, width = images.shape[2:]
        problem = f"images of {height} x {width} pixels are too small for a search of {search} and patches of {patch}"
        raise InputError(problem, f"give at least {reach + half + 1} a side")
    if images.numel() == 0:
        return images.clone()
    kernel = _kernel(window, patch)
    if images.shape[1] == 3 and colour == "lab":
        parts = [_filtered(part, reach, kernel, strength) for part in to_lab(images)]
        mixed = from_lab(parts[0], parts[1])
        return in_range(mixed.clamp(-_ROUNDING, 1 + _ROUNDING))  # farther off, it is no colour of a screen
    return in_range(_filtered(images, reach, kernel, strength))


def _filtered(images: Tensor, reach: int, kernel: list[float], strength: float) -> Tensor:
    border = reach + len(kernel) // 2
    mirrored = F.pad(images, (border,) * 4, mode="reflect")
    total, weights = images, torch.ones_like(images[:, :1])  # the pixel itself, of distance 0
    saving = torch.is_grad_enabled() and images.requires_grad  # a step's weights again, rather than those of all kept
    for down, across in _half_of_shifts(reach):
        arguments = (mirrored, down, across, border, kernel, strength)
        sums, weight = checkpoint(_pair, *arguments, use_reentrant=False) if saving else _pair(*arguments)
        total, weights = total + sums, weights + weight
    return total / weights


def _half_of_shifts(reach: int) -> list[tuple[int, int]]:
    """Every shift but zero, one of each pair of opposite ones."""
    return [(y, x) for y in range(reach + 1) for x in range(-reach, reach + 1) if y > 0 or x > 0]


def _kernel(window: str, patch: int) -> list[float]:
    """The weights of a row of the surroundings, which sum to 1; those of the square are their products."""
    if window == "flat" or patch == 1:
        return [1 / patch] * patch
    deviation, half = (patch - 1) / 4, patch // 2
    row = (-(torch.arange(-half, half + 1, dtype=torch.float64) ** 2) / (2 * deviation**2)).exp()
    values: list[float] = (row / row.sum()).tolist()
    return values


def _pair(
    mirrored: Tensor, down: int, across: int, border: int, kernel: list[float], strength: float
) -> tuple[Tensor, Tensor]:
    """What the pixels at p + t and at p - t add to p's weighted sum and to its sum of weights, for one shift t.

    d(p, p - t) is d(q, q + t) of the pixel q = p - t: the distances are computed once, on the frame and on as much
    above and beside it as q takes.
    """
    height, width = (side - 2 * border for side in mirrored.shape[2:])
    left, around = max(across, 0), len(kernel) - 1
    tall, wide = height + down + around, width + abs(across) + around
    top, start = border - down - around // 2, border - left - around // 2
    here, there = _cut(mirrored, top, start, tall, wide), _cut(mirrored, top + down, start + across, tall, wide)
    squares = (here - there).square().mean(1, keepdim=True)
    weights = (_smoothed(squares, kernel) / -(strength**2)).exp()
    ahead = _cut(weights, down, left, height, width)
    behind = _cut(weights, 0, left - across, height, width)
    sums = ahead * _cut(mirrored, border + down, border + across, height, width)
    sums = sums + behind * _cut(mirrored, border - down, border - across, height, width)
    return sums, ahead + behind


def _cut(images: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return images[:, :, top : top + height, left : left + width]


def _smoothed(images: Tensor, kernel: list[float]) -> Tensor:
    """Correlation with the kernel along rows and columns, where it fits. Sums of slices: the same for any batch."""
    height, width = (side - len(kernel) + 1 for side in images.shape[2:])
    rows = [weight * images[:, :, i : i + height] for i, weight in enumerate(kernel)]
    down = sum(rows[1:], rows[0])
    columns = [weight * down[..., i : i + width] for i, weight in enumerate(kernel)]
    return sum(columns[1:], columns[0])


def _check_options(search: int, patch: int, strength: float, window: str, colour: str) -> None:
    for name, value in (("search", search), ("patch", patch)):
        if value < 1 or value % 2 == 0:
            raise UsageError(f"{name} is {value}", "give an odd number of pixels")
    check_number("strength", strength)
    if window not in WINDOWS:
        raise UsageError(f"there is no window {window!r}", did_you_mean(window, list(WINDOWS)))
    if colour not in COLOURS:
        raise UsageError(f"there is no way {colour!r} to filter colour", did_you_mean(colour, list(COLOURS)))


class NonLocalMeans(Transformation):
    """`non_local_means` as a module; automatic differentiation gives its true gradient."""

    differentiable: ClassVar[bool] = True

    def __init__(
        self,
        *,
        search: int = 11,
        patch: int = 3,
        strength: float = 4 / 255,
        window: Window = "flat",
        colour: Colour = "lab",
    ) -> None:
        super().__init__()
        _check_options(search, patch, strength, window, colour)
        self.search, self.patch, self.strength = search, patch, strength
        self.window: Window = window
        self.colour: Colour = colour

    def transform(self, images: Images) -> Images:
        """`non_local_means` of the images."""
        return non_local_means(
            images,
            search=self.search,
            patch=self.patch,
            strength=self.strength,
            window=self.window,
            colour=self.colour,
        )
