"""CIELAB against scikit-image's, and back again."""

import numpy as np
import torch
from skimage.color import xyz2lab

from quasinat.defences.cielab import from_lab, to_lab

XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])


def test_it_is_scikit_images(generator: torch.Generator) -> None:
    images = torch.rand(1, 3, 40, 50, generator=generator, dtype=torch.float64)
    images[:, :, :10] *= 0.01  # where the cube root is continued by its tangent
    truth = torch.from_numpy(xyz2lab(images[0].permute(1, 2, 0).numpy() @ XYZ.T)).permute(2, 0, 1)
    lightness, chroma = to_lab(images)
    # scikit-image rounds the white point to 5 digits: up to 3e-4 in a and 2e-3 in b
    assert torch.allclose(100 * lightness[0], truth[:1], rtol=0, atol=1e-3)
    assert torch.allclose(255 * chroma[0], truth[1:], rtol=0, atol=5e-3)


def test_grey_has_no_colour_and_white_is_light() -> None:
    grey = torch.linspace(0, 1, 33, dtype=torch.float64).view(1, 1, 1, 33).expand(1, 3, 1, 33)
    lightness, chroma = to_lab(grey)
    assert chroma.abs().max() < 1e-14
    assert torch.allclose(lightness[..., [0, 32]], torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-14)
    assert (lightness.diff() > 0).all()


def test_there_and_back(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 20, 20, generator=generator, dtype=torch.float64)
    images[:, :, :5], images[:, :, 5] = images[:, :, :5] * 0.01, 0.0
    assert torch.allclose(from_lab(*to_lab(images)), images, rtol=0, atol=1e-13)
    assert torch.allclose(from_lab(*to_lab(images.float())), images.float(), rtol=0, atol=5e-6)


def test_the_gradient_is_the_derivative(generator: torch.Generator) -> None:
    images = torch.rand(1, 3, 2, 3, generator=generator, dtype=torch.float64)
    images[..., 0] *= 0.005
    assert torch.autograd.gradcheck(to_lab, images.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda x: from_lab(*to_lab(x)), images.clone().requires_grad_())
    black = torch.zeros(1, 3, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(to_lab(black)[0].sum(), black)
    assert gradient.isfinite().all()
