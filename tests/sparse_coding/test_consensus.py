"""The consensus update against dense matrices, one block against many, and its memory limit."""

from typing import cast

import pytest
import torch
from torch import Tensor

from quasinat.errors import UsageError
from quasinat.sparse_coding import Consensus, convolve, project_filters, statistics
from quasinat.sparse_coding.consensus import RELAXATION, Block, agree
from quasinat.sparse_coding.dictionary_problem import DictionaryProblem
from quasinat.sparse_coding.normal_equations import ByFilters, ByImages, NormalEquations, maps_of, right_side

HEIGHT, WIDTH, SIZE, RHO = 7, 8, 3, 4.0


def sparse(generator: torch.Generator, *shape: int) -> Tensor:
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return values * (torch.rand(shape, generator=generator) < 0.1)


def block_of(codes: Tensor, images: Tensor, rho: float = RHO) -> Block:
    maps = maps_of(codes)
    few = codes.shape[0] < codes.shape[1]
    gram = maps @ maps.mH if few else maps.mH @ maps
    factor = torch.linalg.cholesky(gram + rho * torch.eye(gram.shape[-1], dtype=gram.dtype))
    system = ByImages(maps, factor, rho) if few else ByFilters(factor)
    return Block(cast(NormalEquations, system), right_side(maps, images))


def matrix_of(codes: Tensor) -> Tensor:
    """The dense matrix of full-size filters `K H W` -> image `H W` for one channel, images stacked."""
    filters = codes.shape[1]
    units = torch.eye(filters * HEIGHT * WIDTH, dtype=codes.dtype).view(-1, filters, HEIGHT, WIDTH)
    # The convolution commutes: each map takes the other's part.
    parts = [[(torch.fft.rfft2(z) * torch.fft.rfft2(u)).sum(0) for z in codes] for u in units]
    columns = [torch.stack([torch.fft.irfft2(p, s=(HEIGHT, WIDTH)) for p in row]).flatten() for row in parts]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("images", [2, 6])  # fewer than the four filters, and more
def test_one_block_is_plain_admm(images: int, generator: torch.Generator) -> None:
    """The iterates equal those of the textbook ADMM for the dictionary update, with dense matrices."""
    codes = sparse(generator, images, 4, HEIGHT, WIDTH)
    targets = torch.randn(images, 1, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    start = project_filters(torch.randn(4, 1, SIZE, SIZE, generator=generator, dtype=torch.float64), "joint")
    problem = DictionaryProblem(targets, 0.1)

    matrix, right = matrix_of(codes), targets.flatten()
    g = torch.nn.functional.pad(start[:, 0], (0, WIDTH - SIZE, 0, HEIGHT - SIZE)).flatten()
    h = torch.zeros_like(g)
    system = matrix.T @ matrix + RHO * torch.eye(len(g), dtype=g.dtype)
    for steps in range(1, 6):
        d = torch.linalg.solve(system, matrix.T @ right + RHO * (g - h))
        d = RELAXATION * d + (1 - RELAXATION) * g
        cropped = (d + h).view(4, 1, HEIGHT, WIDTH)[..., :SIZE, :SIZE]
        kept = project_filters(cropped.contiguous(), "joint")
        g = torch.nn.functional.pad(kept[:, 0], (0, WIDTH - SIZE, 0, HEIGHT - SIZE)).flatten()
        h = h + d - g

        block = block_of(codes, targets)
        found, _ = agree([block], start, [torch.zeros_like(block.right)], RHO, (HEIGHT, WIDTH), problem, steps, 1)
        torch.testing.assert_close(found, kept, rtol=0, atol=1e-10)


def test_blocks_agree_on_the_filters_that_made_the_images(generator: torch.Generator) -> None:
    truth = project_filters(torch.randn(4, 2, SIZE, SIZE, generator=generator, dtype=torch.float64), "joint")
    codes = sparse(generator, 12, 4, HEIGHT, WIDTH)
    images = convolve(truth, codes)
    noisy = project_filters(truth + 0.3 * torch.randn(truth.shape, generator=generator, dtype=truth.dtype), "joint")
    for each in (12, 6, 3, 1):
        blocks = [block_of(z, x, 1.0) for z, x in zip(codes.split(each), images.split(each), strict=True)]
        duals = [torch.zeros_like(block.right) for block in blocks]
        found, _ = agree(blocks, noisy, duals, 1.0, (HEIGHT, WIDTH), DictionaryProblem(images, 0.1), 400, len(blocks))
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-4)


def test_the_fixed_point_fits_the_codes_as_well_as_the_gradient_method(generator: torch.Generator) -> None:
    from quasinat.sparse_coding import update_filters

    codes = sparse(generator, 6, 4, HEIGHT, WIDTH)
    images = torch.randn(6, 1, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    start = project_filters(torch.randn(4, 1, SIZE, SIZE, generator=generator, dtype=torch.float64), "at-most-one")
    problem = DictionaryProblem(images, 0.1, "at-most-one")  # convex: both must reach the one optimum
    block = block_of(codes, images, 1.0)
    found, _ = agree([block], start, [torch.zeros_like(block.right)], 1.0, (HEIGHT, WIDTH), problem, 3000, 1)
    seen = statistics(codes, images, SIZE)
    other = update_filters(start, seen, constraint="at-most-one", steps=3000)
    assert float(seen.fidelity(found)) == pytest.approx(float(seen.fidelity(other)), rel=1e-6)


def test_as_many_blocks_as_the_memory_holds() -> None:
    filters = torch.zeros(64, 3, 8, 8)
    one = 32 * 17 * 8 * (64 * 64 + 3 * 64 * 3)
    assert len(Consensus(memory=100.0 * one, block_size=256).blocks(2560, filters, 32, 32)) == 10
    assert len(Consensus(memory=6.0 * one, block_size=256).blocks(2560, filters, 32, 32)) == 5
    blocks = Consensus(memory=float(one), block_size=256).blocks(50_000, filters, 32, 32)
    assert len(blocks) == 1
    assert blocks[0].equal(torch.arange(50_000))  # its memory does not grow with the images
    with pytest.raises(UsageError, match=r"one block of filters for images of 32 x 32 pixels takes .* learn online"):
        Consensus(memory=one - 1.0, block_size=256).blocks(2560, filters, 32, 32)
