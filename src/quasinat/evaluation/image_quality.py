"""How far two images are from each other."""

import torch

from quasinat.arrays import Images, PerImage
from quasinat.attacks import Dissimilarity, Linf


def psnr(images: Images, reference: Images) -> PerImage:
    """Peak signal-to-noise ratio in dB per image, for a peak of 1; infinite where the two are equal.

    Args:
        images: `B C H W` in [0, 1].
        reference: what they are compared with, of the same shape.

    Examples:
        >>> import torch
        >>> from quasinat import psnr
        >>> psnr(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5)).round(decimals=2)
        tensor([20.])
    """
    return -10 * torch.log10((images - reference).square().flatten(1).mean(1))


def dissimilarity(images: Images, reference: Images) -> PerImage:
    """The paper's L2-dissimilarity ||x - x0||_2 / ||x0||_2 per image (section 5.1).

    Args:
        images: `B C H W` in [0, 1].
        reference: x0, of the same shape.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import dissimilarity
        >>> dissimilarity(torch.full((1, 1, 4, 4), 0.52), torch.full((1, 1, 4, 4), 0.5)).round(decimals=3)
        tensor([0.0400])
    """
    return Dissimilarity(0.0).measure(reference, images)


def largest_difference(images: Images, reference: Images) -> PerImage:
    """The L-infinity distance per image.

    Args:
        images: `B C H W` in [0, 1].
        reference: what they are compared with, of the same shape.

    Examples:
        >>> import torch
        >>> from quasinat.evaluation import largest_difference
        >>> largest_difference(torch.tensor([[[[0.5, 0.75]]]]), torch.tensor([[[[0.5, 0.5]]]]))
        tensor([0.2500])
    """
    return Linf(0.0).measure(reference, images)
