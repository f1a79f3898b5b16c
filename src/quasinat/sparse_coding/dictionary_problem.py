"""Eq. (2) over filters and codes: the problem of dictionary learning, and where a learner stands in it."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from quasinat.arrays import Filters, Images
from quasinat.errors import InputError
from quasinat.sparse_coding.dictionary import ImageSource
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.proximal import Constraint, project_filters
from quasinat.sparse_coding.solution import Solution
from quasinat.sparse_coding.solve import Solver, solve

TOGETHER = 512  # images in memory at a time, of 32 x 32 pixels


@dataclass(frozen=True)
class DictionaryProblem:
    """min over filters on their constraint, and codes, of the sum over images of Eq. (2); biconvex (section 3.3).

    Attributes:
        images: x, what is coded: any real values.
        sparsity: lambda.
        constraint, zero_mean: on the filters, see `project_filters`.
    """

    images: ImageSource
    sparsity: float
    constraint: Constraint = "joint"
    zero_mean: bool = False

    def project(self, filters: Filters) -> Filters:
        """The nearest filters on the constraint."""
        return project_filters(filters, self.constraint, zero_mean=self.zero_mean)

    def code(self, images: Images, filters: Filters, solver: Solver, start: Tensor | None = None) -> Solution:
        """Sparse codes of some of the images."""
        return solve(SparseCodingProblem(images, filters, self.sparsity), solver, start=start, codes="sparse")

    def read(self, rows: Tensor) -> Images:
        """The images at `rows`.

        Raises:
            InputError: NaN or infinity; names the image by its place in the whole set.
        """
        images = self.images[rows]
        readable = images.isfinite().flatten(1).all(1)
        if not bool(readable.all()):
            place = int(rows[(~readable).nonzero()[0]])
            raise InputError(f"image {place} holds NaN or infinity", "leave it out or repair it")
        return images


@dataclass(frozen=True)
class LearningState:
    """Where a learner stands after some passes; with it, learning goes on as if it had never stopped.

    Attributes:
        filters: the dictionary so far, `K C S S`.
        passes: done so far.
        curve: mean objective per image in each pass.
        held_out: mean objective per held-out image, first of the initial filters.
        reseeded: filters that died and were replaced so far.
        memory: what the learner itself keeps between passes, dense or sparse tensors.
    """

    filters: Filters
    passes: int = 0
    curve: tuple[float, ...] = ()
    held_out: tuple[float, ...] = ()
    reseeded: int = 0
    memory: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """What a pass over the images gives; `objective` is per image, `reseeded` the number of filters replaced."""

    filters: Filters
    memory: dict[str, Tensor]
    objective: float
    reseeded: int = 0


@runtime_checkable
class Learner(Protocol):
    """A way to learn a dictionary; hyperparameters only."""

    def run_pass(self, problem: DictionaryProblem, state: LearningState, generator: torch.Generator) -> Pass:
        """One pass over the problem's images; the generator is the pass's own."""
        ...


def together(images: ImageSource) -> int:
    """How many images to hold in memory at a time."""
    if len(images) == 0:
        return TOGETHER
    pixels = images[torch.zeros(1, dtype=torch.int64)].shape[-2:].numel()
    return max(1, TOGETHER * 32 * 32 // pixels)
