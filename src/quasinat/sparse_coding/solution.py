"""The answer of a solver: codes, reconstruction and, per image, how well the problem was solved."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import torch

from quasinat.arrays import CodesBeyond, Images, PerImage, PerImageBool, PerImageInt, StateBeyond

# torch 2.11 warns at the first unchecked sparse tensor unless somebody has chosen; its default is what we choose.
if not torch.sparse.check_sparse_tensor_invariants.is_enabled():
    torch.sparse.check_sparse_tensor_invariants.disable()


class Result(IntEnum):
    """How the solver ended on one image."""

    converged = 0
    max_steps_reached = 1
    not_finite = 2


@dataclass(frozen=True)
class Solution:
    """What a solver returns; every statistic is per image.

    With a boundary other than circular, objective, KKT residual and gap are those of the problem that was solved, on
    the extended domain, where the codes live too (see `SparseCodingProblem`).

    Attributes:
        codes: the sparse variable z, `B K H W`; dense, or a coalesced sparse COO tensor.
        reconstruction: sum_k f_{k,c} (*) z_k within the frame, `B C H W`: T(x) of Eq. (2), unique even where z is not.
        objective: Eq. (2) at `codes`.
        steps: iterations used; their meaning is the solver's.
        result: a `Result` each, as an integer tensor.
        state: the solver's own variable, to start a neighbouring problem from.
        kkt_residual: the largest violation of the optimality conditions, in units of lambda.
        duality_gap: a bound on the objective minus its optimum, in the objective's units.
        solver: the name of what ran.
    """

    codes: CodesBeyond
    reconstruction: Images
    objective: PerImage
    steps: PerImageInt
    result: PerImageInt
    state: StateBeyond
    kkt_residual: PerImage
    duality_gap: PerImage
    solver: str

    @property
    def density(self) -> float:
        """The share of codes that are not zero; NaN for an empty batch."""
        values = self.codes.values() if self.codes.is_sparse else self.codes
        return int((values != 0).sum()) / self.codes.numel() if self.codes.numel() else float("nan")

    @property
    def failures(self) -> dict[int, str]:
        """A sentence for each image that is not converged: what happened, and the remedy."""
        failed = (self.result != Result.converged).nonzero().flatten().tolist()
        return {image: self._failure(image) for image in failed}

    def _failure(self, image: int) -> str:
        steps = int(self.steps[image])
        if int(self.result[image]) == Result.max_steps_reached:
            excess = 100 * float(self.duality_gap[image] / self.objective[image].abs())
            return (
                f"image {image} is not solved to the tolerance after {steps} steps (its objective is at most "
                f"{excess:.2g} % above the optimum); raise max_steps, or the tolerance"
            )
        if steps == 0:  # no solver looks at such an image
            return f"image {image} holds NaN or infinity; leave it out or repair it"
        return f"image {image} overflows {self.state.dtype}; scale it down, or use a wider dtype"


def sparse_codes(indices: torch.Tensor, values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A coalesced COO tensor of entries that are sorted and distinct by construction, which is not checked again."""
    return torch.sparse_coo_tensor(indices, values, tuple(shape), is_coalesced=True, check_invariants=False)


def join(solutions: Sequence[Solution]) -> Solution:
    """The solutions of a batch's parts, at least one, as that of the whole batch."""
    if len(solutions) == 1:
        return solutions[0]

    def joined(name: str) -> torch.Tensor:
        whole = torch.cat([getattr(solution, name) for solution in solutions])
        return whole.coalesce() if whole.is_sparse else whole

    return Solution(
        codes=joined("codes"),
        reconstruction=joined("reconstruction"),
        objective=joined("objective"),
        steps=joined("steps"),
        result=joined("result"),
        state=joined("state"),
        kkt_residual=joined("kkt_residual"),
        duality_gap=joined("duality_gap"),
        solver=solutions[0].solver,
    )


def among_unsolved(solution: Solution, solved: PerImageBool) -> Solution:
    """`solution`, which is of the `solved` images of a batch, as that of the whole batch.

    The others are `not_finite` after no step: their codes and state are zero, everything else is NaN.
    """
    rows = solved.nonzero().flatten()

    def spread(part: torch.Tensor, rest: float | int) -> torch.Tensor:
        shape = (len(solved), *part.shape[1:])
        if part.is_sparse:  # whose rest is zero
            image, *places = part.indices()
            return sparse_codes(torch.stack([rows[image], *places]), part.values(), shape)
        whole = part.new_full(shape, rest)
        whole[rows] = part
        return whole

    nan = float("nan")
    return Solution(
        codes=spread(solution.codes, 0),
        reconstruction=spread(solution.reconstruction, nan),
        objective=spread(solution.objective, nan),
        steps=spread(solution.steps, 0),
        result=spread(solution.result, Result.not_finite),
        state=spread(solution.state, 0),
        kkt_residual=spread(solution.kkt_residual, nan),
        duality_gap=spread(solution.duality_gap, nan),
        solver=solution.solver,
    )


def replaced(solution: Solution, rows: torch.Tensor, other: Solution) -> Solution:
    """`solution` of a batch, with the images at `rows` (ascending) as `other` has them."""

    def both(name: str) -> torch.Tensor:
        whole, part = getattr(solution, name), getattr(other, name)
        if not whole.is_sparse:
            return whole.index_copy(0, rows, part)
        kept = torch.isin(whole.indices()[0], rows, invert=True)
        image, *places = part.indices()
        indices = torch.cat([whole.indices()[:, kept], torch.stack([rows[image], *places])], 1)
        values = torch.cat([whole.values()[kept], part.values()])
        order = indices[0].argsort(stable=True)  # within an image they are sorted
        return sparse_codes(indices[:, order], values[order], whole.shape)

    names = [field.name for field in fields(Solution) if field.name != "solver"]
    parts: dict[str, Any] = {name: both(name) for name in names}
    return replace(solution, **parts)
