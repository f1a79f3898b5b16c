"""Alternating minimisation over a whole set: all codes, then the filters that fit them best (section 3.3)."""

from dataclasses import dataclass, field

import torch

from quasinat.errors import UsageError
from quasinat.parallel import from_process, mine, owner, summed
from quasinat.sparse_coding.auto import Auto
from quasinat.sparse_coding.dictionary_problem import DictionaryProblem, LearningState, Pass, together
from quasinat.sparse_coding.filter_update import update_filters
from quasinat.sparse_coding.reseeding import reseed, usage
from quasinat.sparse_coding.solve import Solver
from quasinat.sparse_coding.statistics import no_statistics, statistics


@dataclass(frozen=True)
class Batch:
    """One filter update a pass, on the sufficient statistics of all the codes. Neither half raises the objective.

    Of several processes each codes a share of the images.

    Args:
        solver: of the coding; every image starts from where it stood in the pass before.
        steps: gradient steps of the filter update.
        keep_codes: whether the codes stay in memory between passes, some ten kilobytes for an image of 32 x 32 pixels.
            Without them a pass takes longer, and memory does not grow with the set.

    Raises:
        UsageError: no gradient steps.
    """

    solver: Solver = field(default_factory=lambda: Auto(tolerance=5e-3))
    steps: int = 40
    keep_codes: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"Batch(steps={self.steps}) learns nothing", "take at least one")

    def run_pass(self, problem: DictionaryProblem, state: LearningState, generator: torch.Generator) -> Pass:
        """Codes every image, then fits the filters to the codes."""
        rows = torch.arange(len(problem.images)).split(together(problem.images))
        memory, total, objective, residual = {}, no_statistics(state.filters), 0.0, problem.read(rows[0][:1])
        for number in mine(range(len(rows))):
            name, images = f"codes-{number}", problem.read(rows[number])
            solution = problem.code(images, state.filters, self.solver, state.memory.get(name))
            if self.keep_codes:
                memory[name] = solution.state
            total += statistics(solution.codes, images, state.filters.shape[-1])
            objective += float(solution.objective.double().sum())
            residual = images - solution.reconstruction
        total = total.across_processes()
        filters = update_filters(
            state.filters, total, constraint=problem.constraint, zero_mean=problem.zero_mean, steps=self.steps
        )
        residual = from_process(residual, owner(len(rows) - 1, len(rows)))
        filters, dead = reseed(filters, usage(total), residual, problem)
        mean = float(summed(torch.tensor(objective, dtype=torch.float64))) / len(problem.images)
        return Pass(filters, memory, mean, len(dead))
