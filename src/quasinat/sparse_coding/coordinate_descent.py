"""Locally greedy coordinate descent for Eq. (2), by a compiled kernel: the solver for sparse codes on a CPU.

Every pixel whose atoms violate |D^T r| <= lambda, r = x - D z, brings its worst one into a working set (the locally
greedy choice of Moreau et al. 2018, one pixel a segment), and a few passes over the set, each

    z_j <- soft(z_j ||f_j||^2 + <f_j, r>, lambda) / ||f_j||^2,

follow before the pixels are looked at again (working sets: Massias et al. 2018). Only r is kept up to date, so that a
step costs C S^2 multiplications whatever K. Each look gives a point of the dual problem, and so a bound on how far the
objective is above its optimum: an image is done when that bound, not an estimate, is small enough.

The numbers do not depend on the number of threads, nor on the other images of the batch.
"""

import os
from dataclasses import dataclass
from typing import ClassVar

import torch

from quasinat.arrays import CodesBeyond
from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding._kernels import binding
from quasinat.sparse_coding.boundary import crop
from quasinat.sparse_coding.iterate import Layout
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.solution import Solution, sparse_codes


@dataclass(frozen=True)
class CoordinateDescent:
    """Hyperparameters of the solver.

    Args:
        tolerance: an image is done when its objective is certainly within this share of the optimum (its duality gap
            over its objective). In practice the objective is then far closer than that.
        max_steps: looks at all the pixels at most.
        passes: over the working set at most between two looks.
        inner: passes end early once every change moves D^T r by less than this share of the largest violation.
        threads: `None` for as many as torch uses.

    Raises:
        UsageError: a value outside its range.
    """

    name: ClassVar[str] = "coordinate-descent"
    tolerance: float = 1e-2
    max_steps: int = 500
    passes: int = 20
    inner: float = 0.1
    threads: int | None = None

    def __post_init__(self) -> None:
        ranges = {
            "tolerance": self.tolerance >= 0,
            "max_steps": self.max_steps >= 0,
            "passes": self.passes >= 1,
            "inner": 0 <= self.inner < 1,
            "threads": self.threads is None or self.threads >= 1,
        }
        for name, valid in ranges.items():
            if not valid:
                found = f"CoordinateDescent({name}={getattr(self, name)}) is out of range"
                raise UsageError(found, f"leave {name} at its default")

    def solve(
        self, problem: SparseCodingProblem, start: CodesBeyond | None = None, codes: Layout = "dense"
    ) -> Solution:
        """Solves a problem all of whose images are finite; `start` and the solution's `state` are codes.

        Raises:
            InputError: `start` has another shape than the codes.
            UsageError: the kernel cannot solve this problem; says why.
        """
        reason = unsuitable(problem)
        if reason:
            raise UsageError(f"coordinate descent cannot run: {reason}", "use ADMM(), or solver='auto'")
        shape = problem.codes_shape()
        if start is not None and start.shape != shape:
            raise InputError(
                f"the start has shape {tuple(start.shape)}, the codes of this problem {shape}",
                "pass the state of a solution of the same images and filters, or none",
            )
        found, report = binding.solve(
            problem.circular_images().contiguous(),
            problem.filters.contiguous(),
            binding.Options(
                problem.sparsity,
                self.tolerance,
                self.inner,
                self.max_steps,
                self.passes,
                self.threads or torch.get_num_threads(),
            ),
            None if start is None else to_kernel(start),
        )
        layout = from_kernel(found, shape) if codes == "sparse" else from_kernel(found, shape).to_dense()
        dtype = problem.images.dtype
        return Solution(
            codes=layout,
            reconstruction=crop(report.reconstruction, problem.boundary, problem.filters.shape[-1]),
            objective=report.objective.to(dtype),
            steps=report.steps,
            result=report.result,
            state=layout,
            kkt_residual=report.violation.to(dtype),
            duality_gap=report.gap.to(dtype),
            solver=self.name,
        )


def available() -> str | None:
    """`None` where the compiled kernel is there to run, else why it is not."""
    if os.environ.get("QUASINAT_NO_KERNEL"):
        return "the kernel is switched off by QUASINAT_NO_KERNEL"
    if binding.library() is None:
        return "its kernel was not built (no C++ compiler was found when quasinat was installed)"
    return None


def unsuitable(problem: SparseCodingProblem) -> str | None:
    """Why coordinate descent cannot solve this problem; `None` where it can."""
    images = problem.images
    if available():
        return available()
    if images.device.type != "cpu":
        return f"the images are on {images.device.type}"
    if problem.mask is not None:
        return "the problem has a mask"
    if problem.sparsity == 0:
        return "lambda is zero, so that the codes are not sparse"
    return None


def to_kernel(codes: CodesBeyond) -> binding.SparseCodes:
    """Codes as the kernel takes them; zeros are left out."""
    coalesced = (codes if codes.is_sparse else codes.to_sparse()).coalesce()
    batch, _, height, width = codes.shape
    image, k, row, column = coalesced.indices()
    offsets = torch.zeros(batch + 1, dtype=torch.int64)
    offsets[1:] = image.bincount(minlength=batch).cumsum(0)
    places = (k * height + row) * width + column
    return binding.SparseCodes(offsets, places.contiguous(), coalesced.values().contiguous())


def from_kernel(codes: binding.SparseCodes, shape: tuple[int, int, int, int]) -> CodesBeyond:
    """The kernel's codes as a coalesced COO tensor `B K H W`."""
    batch, _, height, width = shape
    image = torch.repeat_interleave(torch.arange(batch), codes.offsets.diff())
    indices = torch.stack(
        [image, codes.places // (height * width), codes.places // width % height, codes.places % width]
    )
    return sparse_codes(indices, codes.values, shape)
