"""The linear solve of the ADMM, (D^H D + rho I)^-1, by a C x C system per frequency instead of a K x K one."""

import torch

from quasinat.arrays import CodeSpectra, FilterSpectra, Kernels, PairSpectra, Spectra
from quasinat.sparse_coding.convolution import analyse, synthesise
from quasinat.sparse_coding.pairs import real_part


def woodbury_kernel(filters_hat: FilterSpectra, penalty: float) -> Kernels:
    """(rho I + D D^H)^-1 at every frequency: filters `K C H W'` to Hermitian matrices `C C H W'`.

    Args:
        filters_hat: spectra of the filters, half or full; the kernels are on the same frequencies.
        penalty: rho > 0.
    """
    gram = torch.einsum("kchw,kdhw->hwcd", filters_hat, filters_hat.conj())
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.inv(gram + penalty * identity).permute(2, 3, 0, 1).contiguous()


def apply_kernel(kernel: Kernels, images_hat: Spectra) -> Spectra:
    """The C x C product at every frequency: `B C H W'` to `B C H W'`."""
    return torch.stack([(row * images_hat).sum(1) for row in kernel], 1)


def correction(v_hat: PairSpectra, images_hat: Spectra, filters_hat: FilterSpectra, kernel: Kernels) -> PairSpectra:
    """D^H (rho I + D D^H)^-1 (s - D v): what the x-step of the ADMM adds to v, on full spectra of paired maps.

    By the Woodbury identity v + correction solves (D^H D + rho I) x = D^H s + rho v, so no K x K system appears.
    """
    residual = images_hat - real_part(synthesise(v_hat, filters_hat))
    return analyse(apply_kernel(kernel, residual), filters_hat)


def relative_residual(
    x_hat: CodeSpectra, v_hat: CodeSpectra, images_hat: Spectra, filters_hat: FilterSpectra, penalty: float
) -> float:
    """||(D^H D + rho I) x - (D^H s + rho v)|| / ||D^H s + rho v||: how well x solves the normal equations."""
    left = analyse(synthesise(x_hat, filters_hat), filters_hat) + penalty * x_hat
    right = analyse(images_hat, filters_hat) + penalty * v_hat
    return float(torch.linalg.vector_norm(left - right) / torch.linalg.vector_norm(right))
