"""Small random problems, a convolution that is obviously right, and the stored golden files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quasinat.sparse_coding import SparseCodingProblem, project_filters


def problem_of(
    *,
    images: int = 1,
    channels: int = 1,
    filters: int = 6,
    size: int = 5,
    shape: tuple[int, int] = (16, 16),
    sparsity: float = 0.05,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> SparseCodingProblem:
    """Smooth random filters of unit norm and images that are partly made of them, so that the codes are sparse."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(filters, channels, size, size, generator=generator, dtype=torch.float64)
    atoms = project_filters(atoms, "joint")
    codes = torch.randn(images, filters, *shape, generator=generator, dtype=torch.float64)
    codes = codes * (torch.rand(codes.shape, generator=generator) < 0.03)
    noise = 0.03 * torch.randn(images, channels, *shape, generator=generator, dtype=torch.float64)
    return SparseCodingProblem((synthesis(atoms, codes) + noise).to(dtype), atoms.to(dtype), sparsity)


def synthesis(filters: Tensor, codes: Tensor) -> Tensor:
    """sum_k f_{k,c} (*) z_k by moving the maps: circular, each filter's origin at its first pixel."""
    images = codes.new_zeros(len(codes), filters.shape[1], *codes.shape[-2:])
    for row in range(filters.shape[2]):
        for column in range(filters.shape[3]):
            moved = codes.roll((row, column), dims=(2, 3))
            images += torch.einsum("kc,bkhw->bchw", filters[:, :, row, column], moved)
    return images


def as_matrix(filters: Tensor, height: int, width: int) -> Tensor:
    """D as a matrix: `C H W` rows, `K H W` columns, one column an atom."""
    units = torch.eye(len(filters) * height * width, dtype=filters.dtype)
    return synthesis(filters, units.view(-1, len(filters), height, width)).flatten(1).T


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """These tensors are tiny: a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of stored cross-checks; the test is skipped, visibly, where none is named."""
    root = os.environ.get("QUASINAT_GOLDEN")
    if not root or not Path(root).is_dir():
        pytest.skip("golden files: set QUASINAT_GOLDEN to the folder that holds them")
    return Path(root)
