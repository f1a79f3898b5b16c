"""The Tikhonov split of an image into a low-pass part and the rest (the authors' released recipe; SPORCO's filter)."""

import torch
from jaxtyping import Int64
from torch import Tensor

from quasinat.arrays import Images


def tikhonov_split(images: Images, weight: float = 5.0, padding: int = 16) -> tuple[Images, Images]:
    """Splits images `B C H W` into (low, high) with low + high = images.

    low = argmin_l 1/2 ||l - x||^2 + weight/2 ||grad l||^2, solved in the Fourier domain on the image continued by
    `padding` mirrored pixels on every side. A constant image is all low-pass.

    Args:
        images: `B C H W`.
        weight: of the gradient's energy; more of it, a smoother low-pass part.
        padding: mirrored pixels on every side.

    Examples:
        >>> import torch
        >>> from quasinat.sparse_coding import tikhonov_split
        >>> images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> low, high = tikhonov_split(images)
        >>> bool(torch.allclose(low + high, images)), bool(high.std() < images.std())
        (True, True)
    """
    if len(images) == 0:  # which the FFT refuses
        return images, images
    height, width = images.shape[-2:]
    rows, columns = mirrored(height, padding, images), mirrored(width, padding, images)
    padded = images[..., rows, :][..., columns]
    response = 1 + weight * (difference_power(len(rows), images)[:, None] + difference_power(len(columns), images))
    spectra = torch.fft.fft2(padded) / response
    low = torch.fft.ifft2(spectra).real[..., padding : padding + height, padding : padding + width]
    return low, images - low


def mirrored(length: int, padding: int, like: Tensor) -> Int64[Tensor, "padded"]:
    """Indices that continue 0 .. length-1 by mirroring, the edge pixel repeated (NumPy's `symmetric`)."""
    index = torch.arange(-padding, length + padding, device=like.device) % (2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)


def difference_power(length: int, like: Tensor) -> Tensor:
    """|G|^2 of the forward difference [-1, 1] at every frequency: 2 - 2 cos(2 pi k / length)."""
    frequency = torch.arange(length, device=like.device, dtype=like.dtype) / length
    return 2 - 2 * torch.cos(2 * torch.pi * frequency)
