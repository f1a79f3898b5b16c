"""How far two images are from each other."""

import torch

from quasinat.arrays import Images, PerImage
from quasinat.attacks import Dissimilarity, Linf


def psnr(images: Images, reference: Images) -> PerImage:
    """Peak signal-to-noise ratio in dB per image, for a peak of 1; infinite where the two are equal."""
    return -10 * torch.log10((images - reference).square().flatten(1).mean(1))


def dissimilarity(images: Images, reference: Images) -> PerImage:
    """The paper's L2-dissimilarity ||x - x0||_2 / ||x0||_2 per image (section 5.1)."""
    return Dissimilarity(0.0).measure(reference, images)


def largest_difference(images: Images, reference: Images) -> PerImage:
    """The L-infinity distance per image."""
    return Linf(0.0).measure(reference, images)
