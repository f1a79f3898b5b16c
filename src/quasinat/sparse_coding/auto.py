"""The solver that suits a problem: by device, dtype and mask, and image by image by how sparse the codes are."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from quasinat.arrays import StateBeyond
from quasinat.errors import UsageError
from quasinat.sparse_coding import coordinate_descent, fused_admm
from quasinat.sparse_coding._kernels import binding
from quasinat.sparse_coding.admm import ADMM, STORAGE
from quasinat.sparse_coding.coordinate_descent import CoordinateDescent
from quasinat.sparse_coding.fused_admm import FusedADMM
from quasinat.sparse_coding.iterate import IterativeSolver, Layout, iterate
from quasinat.sparse_coding.masked_admm import MaskedADMM
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.solution import Result, Solution, replaced

NARROW_STEPS = 200  # from here on rounding, not the number of steps, is what keeps bfloat16 maps from the optimum


@dataclass(frozen=True)
class Auto:
    """Runs another solver, whose name is in the solution.

    | problem | solver |
    | --- | --- |
    | with a mask | `MaskedADMM` |
    | on a CPU with the kernel, float32 or float64, lambda > 0 | `CoordinateDescent`; `ADMM` for the images left over |
    | on a GPU with Triton, float32 | `FusedADMM` |
    | anything else | `ADMM` |

    Coordinate descent is the faster the sparser the codes. An image that it has not finished after `max_steps`, because
    lambda is small and its codes dense, is handed to `ADMM`: each image alone decides, not the batch.

    Args:
        tolerance: the duality gap over the objective; a tenth of it is the relative residual of an ADMM.
        max_steps: of the coordinate descent.
        storage: the dtype in which the maps of an ADMM wait between steps: float16 and bfloat16 take half the memory
            and traffic. Rounded maps keep the residuals above some 1e-2, while T(x) is as near to the optimum as
            after as many steps in float32: `NARROW_STEPS` then end an image that is not done. An ADMM runs on a CPU
            too then: coordinate descent keeps no maps. `None` is the images' dtype.

    Raises:
        UsageError: a storage that holds no maps.
    """

    name: ClassVar[str] = "auto"
    tolerance: float = 1e-2
    max_steps: int = 40
    storage: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.storage not in (None, *STORAGE):
            known = ", ".join(str(dtype) for dtype in STORAGE)
            raise UsageError(f"Auto(storage={self.storage}) holds no maps", f"choose one of {known}")

    def pick(self, problem: SparseCodingProblem) -> CoordinateDescent | IterativeSolver:
        """What runs for `problem`."""
        if problem.mask is not None:
            return MaskedADMM(tolerance=self.tolerance / 10)
        if self.storage is None and coordinate_descent.unsuitable(problem) is None:
            return CoordinateDescent(tolerance=self.tolerance, max_steps=self.max_steps)
        if problem.images.device.type == "cuda" and fused_admm.unsuitable(problem) is None:
            if self.storage is None:
                return FusedADMM(tolerance=self.tolerance / 10)
            narrow = FusedADMM(tolerance=self.tolerance / 10, storage=self.storage, max_steps=NARROW_STEPS)
            return replace(narrow, precision="tf32x3")  # whose error is far below that of the storage
        return self._dense()

    def solve(
        self, problem: SparseCodingProblem, start: StateBeyond | None = None, codes: Layout = "dense"
    ) -> Solution:
        """Solves a problem all of whose images are finite."""
        solver = self.pick(problem)
        if not isinstance(solver, CoordinateDescent):
            return iterate(problem, solver, start, codes)
        solution = solver.solve(problem, start, codes)
        unfinished = solution.result == Result.max_steps_reached
        if not bool(unfinished.any()):
            return solution
        # Dense codes come with a lambda far below the image's scale, from which 25 lambda is a poor penalty to keep.
        rest = iterate(problem.select(unfinished), replace(self._dense(), adaptive=True), None, codes)
        rows = unfinished.nonzero().flatten()
        # Its state is another solver's: the codes are what the next coordinate descent can start from.
        name = f"{solution.solver}, {len(rows)} of {len(unfinished)} images by {rest.solver}"
        return replace(replaced(solution, rows, replace(rest, state=rest.codes)), solver=name)

    def _dense(self) -> ADMM:
        if self.storage is None:
            return ADMM(tolerance=self.tolerance / 10)
        return ADMM(tolerance=self.tolerance / 10, storage=self.storage, max_steps=NARROW_STEPS)


def solvers_here() -> dict[str, str]:
    """What each solver runs on here, or why it cannot run; "auto" says what it takes for ordinary images."""
    kernel = coordinate_descent.available()
    fused = fused_admm.available(torch.device("cuda"))
    on_cpu = "admm" if kernel else "coordinate-descent"
    return {
        "coordinate-descent": kernel or f"CPU, compiled kernel with {binding.instruction_set()}",
        "admm": "CPU and CUDA, plain torch",
        "fused-admm": fused or "CUDA, Triton",
        "auto": f"{on_cpu} on a CPU, {'admm' if fused else 'fused-admm'} on CUDA",
    }
