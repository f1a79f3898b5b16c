"""Consensus ADMM for the dictionary (Choudhury et al. 2017; Garcia-Cardona & Wohlberg 2018), in the Fourier domain.

The images are split into blocks. Each block n has filters d_n of its own, as large as the images; all agree on one
dictionary g of the right support and norm:

    minimise  sum_n 1/2 ||Z_n d_n - x_n||^2   subject to  d_n = g,  g on the constraint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from quasinat.arrays import Filters, Images
from quasinat.errors import UsageError
from quasinat.parallel import from_process, mine, owner, summed
from quasinat.sparse_coding.auto import Auto
from quasinat.sparse_coding.dictionary_problem import DictionaryProblem, LearningState, Pass, together
from quasinat.sparse_coding.normal_equations import (
    ByFilters,
    ByImages,
    NormalEquations,
    Right,
    maps_of,
    right_side,
    system_bytes,
)
from quasinat.sparse_coding.reseeding import reseed
from quasinat.sparse_coding.solve import Solver

RELAXATION = 1.8  # Boyd et al. 2011, section 3.4.3


class Block(NamedTuple):
    """A block's system and right side b_n = Z_n^H x_n at every frequency."""

    system: NormalEquations
    right: Right


@dataclass(frozen=True)
class Consensus:
    """Learns with one consensus update after each coding of all the images.

    Of several processes each has a share of the blocks; they agree on a mean over all blocks, the same on each.

    Args:
        memory: bytes for the systems of all blocks; more images than fit are put into fewer blocks. A block of more
            images than filters takes no more memory for a larger number of images.
        block_size: images a block, unless that needs more memory.
        steps: ADMM iterations in each pass.
        penalty: rho, in units of the mean of the systems' diagonals.
        solver: of the coding.

    Raises:
        UsageError: a value out of range, or (in a pass) too little memory for one block.
    """

    memory: float = 2e9
    block_size: int = 256
    steps: int = 30
    penalty: float = 1.0
    solver: Solver = field(default_factory=lambda: Auto(tolerance=2e-2))

    def __post_init__(self) -> None:
        for name in ("memory", "block_size", "steps", "penalty"):
            if not getattr(self, name) > 0:
                raise UsageError(f"Consensus({name}={getattr(self, name)}) is not above zero", f"leave {name} out")

    def run_pass(self, problem: DictionaryProblem, state: LearningState, generator: torch.Generator) -> Pass:
        """Codes every block, then lets the blocks' filters agree."""
        first = problem.read(torch.zeros(1, dtype=torch.int64))
        height, width = first.shape[-2:]
        rows = self.blocks(len(problem.images), state.filters, height, width)
        own = mine(range(len(rows)))
        coded = [_Coded.of(problem, rows[n], state.filters, self.solver) for n in own]
        values = [[float(block.diagonal), block.objective] for block in coded]
        sums = summed(torch.tensor(values, dtype=torch.float64).view(len(own), 2).sum(0))
        rho = self.penalty * float(sums[0]) / len(rows)
        blocks = [block.factored(rho) for block in coded]
        # The duals are kept in units of rho, which changes from pass to pass.
        names = [f"dual-{n}" for n in own]
        duals = [state.memory.get(name, torch.zeros_like(b.right)) / rho for name, b in zip(names, blocks, strict=True)]
        filters, duals = agree(blocks, state.filters, duals, rho, (height, width), problem, self.steps, len(rows))
        energy = summed(sum((block.energy for block in coded), state.filters.new_zeros(len(filters))))
        residual = from_process(coded[-1].residual if coded else first, owner(len(rows) - 1, len(rows)))
        filters, dead = reseed(filters, energy, residual, problem)
        for dual in duals:
            dual[:, dead] = 0
        memory = {name: rho * dual for name, dual in zip(names, duals, strict=True)}
        return Pass(filters, memory, float(sums[1]) / len(problem.images), len(dead))

    def blocks(self, images: int, filters: Filters, height: int, width: int) -> Sequence[Tensor]:
        """The rows of each block: as many blocks of about `block_size` as fit the memory.

        Raises:
            UsageError: not even one block fits.
        """
        count = -(-images // self.block_size)
        while True:
            each = -(-images // count)
            needed = count * system_bytes(each, filters, height, width)
            if needed <= self.memory:
                return torch.arange(images).split(each)
            if count == 1:
                raise UsageError(
                    f"one block of filters for images of {height} x {width} pixels takes {needed / 1e9:.2g} GB, more "
                    f"than the {self.memory / 1e9:.2g} GB given",
                    "give more memory, or learn online",
                )
            count = -(-count // 2)


@dataclass(frozen=True)
class _Coded:
    """A block after coding: its matrix Z^H Z or, of few images, Z itself."""

    matrix: Tensor
    few: bool
    right: Right
    energy: Tensor
    objective: float
    residual: Images

    @staticmethod
    def of(problem: DictionaryProblem, rows: Tensor, filters: Filters, solver: Solver) -> "_Coded":
        few = len(rows) < len(filters)
        matrices: list[Tensor] = []
        right, energy, objective = torch.zeros(()), torch.zeros(()), 0.0
        for part in rows.split(min(together(problem.images), 64)):
            images = problem.read(part)
            solution = problem.code(images, filters, solver)
            codes = solution.codes.to_dense()
            maps = maps_of(codes)
            if few or not matrices:
                matrices.append(maps if few else maps.mH @ maps)
            else:
                matrices[0] += maps.mH @ maps
            right = right + right_side(maps, images)
            energy = energy + codes.square().sum((0, 2, 3))
            objective += float(solution.objective.double().sum())
        residual = images - solution.reconstruction
        return _Coded(torch.cat(matrices, 1), few, right, energy, objective, residual)

    @property
    def diagonal(self) -> Tensor:
        """The mean of the diagonal of Z^H Z over filters and frequencies."""
        if self.few:
            return self.matrix.abs().square().sum(1).mean()
        return self.matrix.diagonal(dim1=1, dim2=2).real.mean()

    def factored(self, rho: float) -> Block:
        """The block with Z^H Z + rho I factored."""
        gram = self.matrix @ self.matrix.mH if self.few else self.matrix
        factor = torch.linalg.cholesky(gram + rho * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))
        return Block(ByImages(self.matrix, factor, rho) if self.few else ByFilters(factor), self.right)


def agree(
    blocks: Sequence[Block],
    filters: Filters,
    duals: Sequence[Right],
    rho: float,
    shape: tuple[int, int],
    problem: DictionaryProblem,
    steps: int,
    count: int,
) -> tuple[Filters, list[Right]]:
    """ADMM iterations on the consensus problem with the codes fixed:

        d_n <- (Z_n^H Z_n + rho I)^-1 (Z_n^H x_n + rho (g - h_n))
        g   <- P(mean_n (d_n + h_n))
        h_n <- h_n + d_n - g

    with d_n over-relaxed. P crops to the support S x S and projects on the constraint.

    Args:
        blocks: the systems, for images of `shape`.
        filters: g, to start from.
        duals: h_n, to start from.
        count: blocks of all processes.

    Returns:
        g and the h_n.
    """
    duals = list(duals)
    consensus = _to_frequencies(filters, shape)
    for _ in range(steps):
        own = []
        for block, dual in zip(blocks, duals, strict=True):
            d = block.system.solve(block.right + rho * (consensus - dual))
            own.append(RELAXATION * d + (1 - RELAXATION) * consensus)
        mean = summed(sum((d + h for d, h in zip(own, duals, strict=True)), torch.zeros_like(consensus))) / count
        filters = problem.project(_from_frequencies(mean, shape, filters.shape[-1]))
        consensus = _to_frequencies(filters, shape)
        duals = [h + d - consensus for d, h in zip(own, duals, strict=True)]
    return filters, duals


def _to_frequencies(filters: Filters, shape: tuple[int, int]) -> Right:
    return torch.fft.rfft2(filters, s=shape).permute(2, 3, 0, 1).flatten(0, 1)


def _from_frequencies(spectra: Right, shape: tuple[int, int], size: int) -> Filters:
    height, width = shape
    grid = spectra.unflatten(0, (height, width // 2 + 1)).permute(2, 3, 0, 1)
    return torch.fft.irfft2(grid, s=shape)[..., :size, :size].contiguous()
