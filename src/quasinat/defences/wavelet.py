"""Wavelet shrinkage: an image's Haar coefficients are pulled towards zero, by thresholds that BayesShrink chooses."""

import math
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Images
from quasinat.attacks.checks import check_count, check_number
from quasinat.defences.transformation import Transformation
from quasinat.errors import InputError, UsageError, did_you_mean

Method = Literal["bayes", "visu"]
Mode = Literal["soft", "hard"]
Colour = Literal["ycbcr", "none"]
SigmaUnit = Literal["channel", "image"]

Band = Float[Tensor, "batch channels _ _"]
Details = tuple[Band, Band, Band]
"""One level's bands: differences down the columns, along the rows, and both ways."""

# ITU-R BT.601: R, G, B in [0, 1] to Y, Cb and Cr in 8-bit levels, but for offsets that the scaling takes off again.
YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))


def wavelet_shrinkage(
    images: Images,
    *,
    sigma: float = 0.04,
    method: Method = "bayes",
    mode: Mode = "soft",
    levels: int | None = None,
    colour: Colour = "ycbcr",
    sigma_unit: SigmaUnit = "channel",
) -> Images:
    """Images whose Haar wavelet coefficients are shrunk, as scikit-image's `denoise_wavelet` does with "db1".

    BayesShrink (Chang, Yu & Vetterli 2000) takes for each band of details the threshold
    sigma^2 / sqrt(mean(d^2) - sigma^2); VisuShrink (Donoho & Johnstone 1994) takes sigma sqrt(2 log(H W)) for all.
    BayesShrink on YCbCr is the denoiser of pixel deflection (Prakash et al. 2018).

    Args:
        images: `B C H W` in [0, 1].
        sigma: deviation of the noise that is looked for; 0.04 in the code of Prakash et al. In which unit, see below.
        method: "bayes" or "visu".
        mode: "soft" takes the threshold off every coefficient, "hard" only sets those below it to zero.
        levels: of the transform; as many as the smaller side allows less 3, and at least 1, as in scikit-image.
        colour: "ycbcr" shrinks the luminance and the two chrominances of RGB images, each scaled to [0, 1] first;
            "none", and images that have not three channels, shrinks the channels as they are.
        sigma_unit: "channel" takes sigma in units of the scaled Y, Cb and Cr, and clips them to [0, 1]. This is what
            scikit-image did up to 0.15, and so when Prakash et al. wrote. "image" takes it in units of R, G and B,
            as later versions do (`rescale_sigma=True`): somewhat less for Y, more for Cb and Cr, whose ranges
            are small. (Their `rescale_sigma=False` takes it in units of 8-bit levels, and 0.04 does next to nothing.)
            Without "ycbcr" there is no difference.

    Returns:
        The images, clamped to [0, 1].

    Raises:
        UsageError: an unknown choice, a sigma that is not positive, levels below 1.
        InputError: more levels than the images allow.

    What differs from scikit-image: only the Haar wavelet; results are always clamped to [0, 1], as its old versions
    did and its new ones do not for floating point; a channel of one value is left alone, where the old ones gave NaN.
    """
    check_settings(sigma, method, mode, levels, colour, sigma_unit)
    if len(images) == 0:
        return images.clone()
    most = min(images.shape[2:]).bit_length() - 1
    if levels is not None and levels > most:
        height, width = images.shape[2:]
        raise InputError(f"images of {height} x {width} pixels have no {levels} levels", f"take at most {most}")
    depth = max(most - 3, 1) if levels is None else levels
    if colour == "none" or images.shape[1] != 3:
        return _shrunk(images, images.new_tensor(sigma), method, mode, depth).clamp(0, 1)
    matrix = images.new_tensor(YCBCR)
    planes = torch.einsum("dc,bchw->bdhw", matrix, images)
    low = planes.amin((2, 3), keepdim=True)
    span = planes.amax((2, 3), keepdim=True) - low
    flat = span == 0
    span = torch.where(flat, 1, span)
    deviation = images.new_tensor(sigma)
    if sigma_unit == "image":  # Of independent noise in R, G and B, the deviation in a weighted sum of the three.
        deviation = sigma * torch.linalg.vector_norm(matrix, dim=1)[:, None, None] / span
    scaled = _shrunk((planes - low) / span, deviation, method, mode, depth)
    if sigma_unit == "channel":
        scaled = scaled.clamp(0, 1)
    planes = torch.where(flat, planes, scaled * span + low)
    return torch.einsum("cd,bdhw->bchw", torch.linalg.inv(matrix), planes).clamp(0, 1)


class WaveletShrinkage(Transformation):
    """`wavelet_shrinkage` as a module; its arguments are the function's.

    Automatic differentiation is exact but where a coefficient meets its threshold.
    """

    differentiable: ClassVar[bool] = True

    def __init__(
        self,
        *,
        sigma: float = 0.04,
        method: Method = "bayes",
        mode: Mode = "soft",
        levels: int | None = None,
        colour: Colour = "ycbcr",
        sigma_unit: SigmaUnit = "channel",
    ) -> None:
        super().__init__()
        check_settings(sigma, method, mode, levels, colour, sigma_unit)
        self.sigma, self.method, self.mode = sigma, method, mode
        self.levels, self.colour, self.sigma_unit = levels, colour, sigma_unit

    def transform(self, images: Images) -> Images:
        """The images with their coefficients shrunk."""
        return wavelet_shrinkage(
            images,
            sigma=self.sigma,
            method=self.method,
            mode=self.mode,
            levels=self.levels,
            colour=self.colour,
            sigma_unit=self.sigma_unit,
        )


def check_settings(
    sigma: float, method: str, mode: str, levels: int | None, colour: str, sigma_unit: str = "channel"
) -> None:
    """Refuses what `wavelet_shrinkage` cannot do on any image."""
    check_number("sigma", sigma)
    if levels is not None:
        check_count("levels", levels)
    choices = {"method": (method, Method), "mode": (mode, Mode), "colour": (colour, Colour)}
    for name, (value, kind) in (choices | {"sigma_unit": (sigma_unit, SigmaUnit)}).items():
        if value not in get_args(kind):
            raise UsageError(f"unknown {name} {value!r}", did_you_mean(str(value), list(get_args(kind))))


def haar(images: Images, levels: int) -> tuple[Band, list[Details]]:
    """The orthonormal Haar transform in two dimensions: the coarsest averages, and the details, finest level first.

    A side of odd length is made even by repeating its last row or column (PyWavelets' "symmetric" extension), so a
    level's sides are halved and rounded up.
    """
    averages, details = images, []
    for _ in range(levels):
        low, high = _halves(averages, 2)
        averages, along = _halves(low, 3)
        down, both = _halves(high, 3)
        details.append((down, along, both))
    return averages, details


def inverse_haar(averages: Band, details: list[Details], height: int, width: int) -> Images:
    """The images of that height and width whose transform `haar` gave."""
    for down, along, both in reversed(details):
        averages = averages[:, :, : down.shape[2], : down.shape[3]]  # without what an odd side was extended by
        averages = _joined(_joined(averages, along, 3), _joined(down, both, 3), 2)
    return averages[:, :, :height, :width]


def _halves(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Scaled sums and differences of the neighbours in pairs."""
    if values.shape[dim] % 2:
        values = torch.cat((values, values.narrow(dim, -1, 1)), dim)
    first, second = values.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return (first + second) * math.sqrt(0.5), (first - second) * math.sqrt(0.5)


def _joined(sums: Tensor, differences: Tensor, dim: int) -> Tensor:
    """The inverse of `_halves`."""
    pair = ((sums + differences) * math.sqrt(0.5), (sums - differences) * math.sqrt(0.5))
    return torch.stack(pair, dim + 1).flatten(dim, dim + 1)


def _shrunk(images: Images, sigma: Tensor, method: Method, mode: Mode, levels: int) -> Images:
    """Each channel's details shrunk; `sigma` is one number or one for each image and channel, `B C 1 1`."""
    height, width = images.shape[2:]
    averages, details = haar(images, levels)

    def shrink(band: Tensor) -> Tensor:
        if method == "bayes":
            excess = band.square().mean((2, 3), keepdim=True) - sigma.square()
            threshold = sigma.square() / excess.clamp_min(torch.finfo(band.dtype).eps).sqrt()
        else:
            threshold = sigma * math.sqrt(2 * math.log(height * width))
        if mode == "hard":
            return torch.where(band.abs() < threshold, 0, band)
        return band - band.clamp(-threshold, threshold)

    kept = [(shrink(down), shrink(along), shrink(both)) for down, along, both in details]
    return inverse_haar(averages, kept, height, width)
