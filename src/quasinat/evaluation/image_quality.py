"""How far two images are from each other."""

import torch

from quasinat.arrays import Images, PerImage


def psnr(images: Images, reference: Images) -> PerImage:
    """Peak signal-to-noise ratio in dB per image, for a peak of 1; infinite where the two are equal."""
    return -10 * torch.log10((images - reference).square().flatten(1).mean(1))


def dissimilarity(images: Images, reference: Images) -> PerImage:
    """The paper's L2-dissimilarity ||x - x0||_2 / ||x0||_2 per image (section 5.1); 0 where both are black."""
    distance = torch.linalg.vector_norm((images - reference).flatten(1), dim=1)
    return distance / torch.linalg.vector_norm(reference.flatten(1), dim=1).clamp_min(torch.finfo(images.dtype).tiny)


def largest_difference(images: Images, reference: Images) -> PerImage:
    """The L-infinity distance per image."""
    return (images - reference).abs().flatten(1).amax(1)
