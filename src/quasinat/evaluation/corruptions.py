"""Common corruptions at five severities (Hendrycks & Dietterich 2019): what happens to images without an attacker."""

from collections.abc import Callable

import torch

from quasinat.arrays import Images
from quasinat.defences.draws import drawn
from quasinat.defences.filters import gaussian_filter
from quasinat.defences.jpeg import jpeg
from quasinat.errors import UsageError, did_you_mean

SEVERITIES = (1, 2, 3, 4, 5)
Levels = dict[str, tuple[float, ...]]
LEVELS: dict[int, Levels] = {
    32: {
        "gaussian-noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot-noise": (500, 250, 100, 75, 50),
        "gaussian-blur": (0.4, 0.6, 0.7, 0.8, 1.0),
        "jpeg": (80, 65, 58, 50, 40),
    },
    64: {
        "gaussian-noise": (0.04, 0.08, 0.12, 0.15, 0.18),
        "shot-noise": (250, 100, 50, 30, 15),
        "gaussian-blur": (0.5, 0.75, 1.0, 1.25, 1.5),
        "jpeg": (65, 58, 50, 40, 25),
    },
    224: {
        "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot-noise": (60, 25, 12, 5, 3),
        "gaussian-blur": (1.0, 2.0, 3.0, 4.0, 6.0),
        "jpeg": (25, 18, 15, 10, 7),
    },
}
"""What a severity means, for images of up to that many pixels a side: the deviation of the noise, the photons at the
brightest value, the deviation of the blur in pixels, the quality of the file; those of the authors' CIFAR-10-C,
Tiny-ImageNet-C and ImageNet-C."""


def corrupted(images: Images, name: str, severity: int, *, seed: int = 0) -> Images:
    """The images with one corruption, in [0, 1]; each image's noise is its own, whatever batch it comes in.

    Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
    section 3 and appendix B. Images between the authors' sizes have the levels of the next smaller one, larger than
    224 those of 224.

    What differs from the source, and why: theirs are rounded to 8 bits when they are written to files; these are not.

    Args:
        images: `B C H W` in [0, 1].
        name: "gaussian-noise", "shot-noise" (Poisson), "gaussian-blur" or "jpeg".
        severity: 1 to 5.
        seed: of the noise.

    Raises:
        UsageError: no such corruption or severity.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import CORRUPTIONS, corrupted
        >>> images = torch.full((2, 3, 32, 32), 0.5)
        >>> all(corrupted(images, name, 1).shape == images.shape for name in CORRUPTIONS)
        True
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"there is no corruption {name!r}", did_you_mean(name, list(CORRUPTIONS)))
    if severity not in SEVERITIES:
        raise UsageError(f"the severity is {severity}", "give from 1 to 5")
    return CORRUPTIONS[name](images, float(levels_for(images)[name][severity - 1]), seed)


def levels_for(images: Images) -> Levels:
    """The levels for images of this size."""
    side = min(images.shape[2:])
    return LEVELS[max((size for size in LEVELS if size <= side), default=min(LEVELS))]


def _gaussian_noise(images: Images, deviation: float, seed: int) -> Images:
    noise = drawn(images, seed, "gaussian noise", lambda g: torch.randn(images.shape[1:], generator=g))
    return (images + deviation * noise.to(images.dtype)).clamp(0, 1)


def _shot_noise(images: Images, photons: float, seed: int) -> Images:
    """Poisson counts of `photons` times the image, over `photons`, by the inverse of their distribution."""
    drawn_at = drawn(
        images, seed, "shot noise", lambda g: torch.rand(images.shape[1:], generator=g, dtype=torch.float64)
    )
    from scipy.stats import poisson  # type: ignore[import-untyped, unused-ignore]

    counts = poisson.ppf(drawn_at.cpu().numpy(), photons * images.double().cpu().numpy())
    return (torch.from_numpy(counts).to(images) / photons).clamp(0, 1)


def _gaussian_blur(images: Images, sigma: float, seed: int) -> Images:
    return gaussian_filter(images, sigma=sigma)


def _jpeg(images: Images, quality: float, seed: int) -> Images:
    return jpeg(images, quality=int(quality))


CORRUPTIONS: dict[str, Callable[[Images, float, int], Images]] = {
    "gaussian-noise": _gaussian_noise,
    "shot-noise": _shot_noise,
    "gaussian-blur": _gaussian_blur,
    "jpeg": _jpeg,
}
