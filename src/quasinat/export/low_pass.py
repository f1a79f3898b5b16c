"""The Tikhonov split's low-pass part as four products with real matrices.

Mirrored padding is a matrix, and the padded system a sum of two circulant ones, L for each axis, which the real Fourier
basis Q diagonalises: low = C Q [(Q^T P x P^T Q) / (1 + weight (l_i + l_j))] Q^T C^T, P the padding and C the crop.
"""

import math

import torch
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.sparse_coding.frequency_split import difference_power, mirrored


class LowPass(nn.Module):
    """`tikhonov_split(images)[0]` for images of one size.

    Args:
        height, width: of the images.
        like: a tensor whose dtype and device the matrices take.
        weight, padding: of the split.
    """

    rows: Tensor
    rows_back: Tensor
    columns: Tensor
    columns_back: Tensor
    response: Tensor

    def __init__(self, height: int, width: int, like: Tensor, weight: float = 5.0, padding: int = 16) -> None:
        super().__init__()
        rows, rows_back, row_powers = _axis(height, padding)
        columns, columns_back, column_powers = _axis(width, padding)
        self.register_buffer("rows", rows.to(like).contiguous())
        self.register_buffer("rows_back", rows_back.to(like).contiguous())
        self.register_buffer("columns", columns.T.to(like).contiguous())
        self.register_buffer("columns_back", columns_back.T.to(like).contiguous())
        response = 1 / (1 + weight * (row_powers[:, None] + column_powers))
        self.register_buffer("response", response.to(like))

    def forward(self, images: Images) -> Images:
        """The low-pass part."""
        spectra = self.rows @ images @ self.columns
        return self.rows_back @ (spectra * self.response) @ self.columns_back


def _axis(length: int, padding: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q^T P, C Q and the eigenvalues of one axis, in float64."""
    reference = torch.zeros((), dtype=torch.float64)
    index = mirrored(length, padding, reference)
    whole = len(index)
    place = torch.arange(whole)
    # The frequencies in turn: 0, then each by its cosine and sine, then, of an even length, the last by its cosine.
    frequency = (place + 1) // 2
    angles = 2 * math.pi * (place[:, None] * frequency % whole).double() / whole
    basis = torch.where(place % 2 == 1, angles.cos(), angles.sin())
    basis[:, 0] = 1
    basis = basis / torch.linalg.vector_norm(basis, dim=0)
    padded = torch.nn.functional.one_hot(index, length).double()
    return basis.T @ padded, basis[padding : padding + length], difference_power(whole, reference)[frequency]
