"""CIELAB: lightness apart from colour, in which OpenCV denoises colour images."""

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Images

Lightness = Float[Tensor, "batch 1 height width"]
Chroma = Float[Tensor, "batch 2 height width"]

# Red, green and blue of ITU-R BT.709 as X, Y and Z; rows divided by their sums, the white point D65.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_DELTA = 6 / 29  # below its cube the cube root is continued by its tangent


def to_lab(images: Images) -> tuple[Lightness, Chroma]:
    """L / 100 and (a / 255, b / 255) of colour images: a level of OpenCV's 8-bit CIELAB is 1/255 in each.

    (CIE 1976: L = 116 f(Y) - 16, a = 500 (f(X) - f(Y)), b = 200 (f(Y) - f(Z)), with f the cube root.) The values are
    taken as they are, without undoing the gamma of sRGB: OpenCV's denoising does the same (`COLOR_LBGR2Lab`).

    Args:
        images: `B 3 H W` in [0, 1].
    """
    t = _mixed(images, _matrix())
    roots = torch.where(t > _DELTA**3, t.clamp_min(_DELTA**3) ** (1 / 3), t / (3 * _DELTA**2) + 4 / 29)
    x, y, z = roots.split(1, dim=1)
    return 1.16 * y - 0.16, torch.cat([500 * (x - y), 200 * (y - z)], dim=1) / 255


def from_lab(lightness: Lightness, chroma: Chroma) -> Images:
    """The inverse of `to_lab`; values may leave [0, 1] where the screen cannot show the colour."""
    a, b = chroma.split(1, dim=1)
    y = (lightness + 0.16) / 1.16
    roots = torch.cat([y + 255 * a / 500, y, y - 255 * b / 200], dim=1)
    t = torch.where(roots > _DELTA, roots**3, (roots - 4 / 29) * (3 * _DELTA**2))
    return _mixed(t, torch.linalg.inv(_matrix()))


def _matrix() -> Float[Tensor, "3 3"]:
    matrix = torch.tensor(_XYZ, dtype=torch.float64)
    return matrix / matrix.sum(1, keepdim=True)


def _mixed(images: Images, matrix: Float[Tensor, "3 3"]) -> Images:
    """Each pixel's channels times the matrix; sums written out, which no batch size rounds otherwise."""
    red, green, blue = images.split(1, dim=1)
    return torch.cat([r * red + g * green + b * blue for r, g, b in matrix.tolist()], dim=1)
