"""The linear solve of the ADMM, (D^H D + rho I)^-1, by a C x C system per frequency instead of a K x K one."""

import torch

from quasinat.arrays import CodeSpectra, FilterSpectra, Kernels, PerImage, Spectra
from quasinat.sparse_coding.convolution import analyse, synthesise


def gram(filters_hat: FilterSpectra) -> Kernels:
    """D D^H at every frequency: filters `K C H W'` to Hermitian matrices `1 C C H W'`."""
    channels = filters_hat.unbind(1)
    return torch.stack([torch.stack([(f * g.conj()).sum(0) for g in channels]) for f in channels])[None]


def woodbury_kernel(gram: Kernels, penalty: float | PerImage) -> Kernels:
    """(rho I + D D^H)^-1 at every frequency, by Gauss-Jordan elimination, on all the frequencies at once.

    The matrices are Hermitian and positive definite, which need no pivoting.

    Args:
        gram: D D^H, `1 C C H W'`.
        penalty: rho > 0, one for all (`1 C C H W'` is returned) or one for each image (`B C C H W'`).
    """
    channels = gram.shape[1]
    identity = torch.eye(channels, dtype=gram.dtype, device=gram.device).view(1, channels, channels, 1, 1)
    rho = penalty if isinstance(penalty, float) else penalty.view(-1, 1, 1, 1, 1)
    matrix = gram + rho * identity
    inverse = identity.expand_as(matrix).clone()
    for i in range(channels):
        pivot = matrix[:, i, i].clone().unsqueeze(1)
        row, inverse_row = matrix[:, i] / pivot, inverse[:, i] / pivot
        factors = matrix[:, :, i].clone().unsqueeze(2)
        matrix, inverse = matrix - factors * row.unsqueeze(1), inverse - factors * inverse_row.unsqueeze(1)
        matrix[:, i], inverse[:, i] = row, inverse_row
    return inverse


def apply_kernel(kernel: Kernels, images_hat: Spectra) -> Spectra:
    """The C x C product at every frequency: `B C H W'` to `B C H W'`."""
    return (kernel * images_hat.unsqueeze(1)).sum(2)


def relative_residual(
    x_hat: CodeSpectra, v_hat: CodeSpectra, images_hat: Spectra, filters_hat: FilterSpectra, penalty: float
) -> float:
    """||(D^H D + rho I) x - (D^H s + rho v)|| / ||D^H s + rho v||: how well x solves the normal equations."""
    left = analyse(synthesise(x_hat, filters_hat), filters_hat) + penalty * x_hat
    right = analyse(images_hat, filters_hat) + penalty * v_hat
    return float(torch.linalg.vector_norm(left - right) / torch.linalg.vector_norm(right))
