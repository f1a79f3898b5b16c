"""Online dictionary learning: a filter update after each minibatch, on statistics that forget (Liu et al. 2018)."""

from dataclasses import dataclass, field

import torch

from quasinat.errors import UsageError
from quasinat.parallel import joined, mine, summed
from quasinat.sparse_coding.auto import Auto
from quasinat.sparse_coding.dictionary_problem import DictionaryProblem, LearningState, Pass
from quasinat.sparse_coding.filter_update import update_filters
from quasinat.sparse_coding.reseeding import reseed, usage, without
from quasinat.sparse_coding.solve import Solver
from quasinat.sparse_coding.statistics import Statistics, statistics

PARTS = ("correlations", "cross", "energy")


@dataclass(frozen=True)
class Online:
    """Learns from a set of any size in memory that does not grow with it.

    After minibatch t = 1, 2, ... the filters are fitted to the statistics

        A_t = (1 - 1/t)^forgetting A_{t-1} + A(minibatch t),

    so that codes made with early filters fade, while the memory grows with t and the filters settle (Mairal et al.
    2010; Liu et al. 2018, Eq. 13). Of several processes each codes a share of every minibatch.

    Args:
        batch_size: images a minibatch, drawn without replacement in each pass.
        forgetting: the exponent; 0 remembers everything equally.
        solver: of the coding.
        steps: gradient steps of each filter update.

    Raises:
        UsageError: a value out of range.
    """

    batch_size: int = 128
    forgetting: float = 20.0
    solver: Solver = field(default_factory=lambda: Auto(tolerance=5e-2))
    steps: int = 10

    def __post_init__(self) -> None:
        for name, valid in (
            ("batch_size", self.batch_size >= 1),
            ("forgetting", self.forgetting >= 0),
            ("steps", self.steps >= 1),
        ):
            if not valid:
                raise UsageError(f"Online({name}={getattr(self, name)}) is out of range", f"leave {name} out")

    def run_pass(self, problem: DictionaryProblem, state: LearningState, generator: torch.Generator) -> Pass:
        """A filter update for each minibatch of the images, in random order."""
        filters, size = state.filters, state.filters.shape[-1]
        seen = Statistics(*(state.memory[name] for name in PARTS)) if state.memory else None
        turn = int(state.memory["turn"]) if state.memory else 0
        objective = 0.0
        order = torch.randperm(len(problem.images), generator=generator)
        for rows in order.split(self.batch_size):
            turn += 1
            images = problem.read(mine(rows))
            solution = problem.code(images, filters, self.solver)
            objective += float(solution.objective.double().sum())
            new = statistics(solution.codes, images, size).across_processes()
            seen = new if seen is None else seen.scaled((1 - 1 / turn) ** self.forgetting) + new
            filters = update_filters(
                filters, seen, constraint=problem.constraint, zero_mean=problem.zero_mean, steps=self.steps
            )
        assert seen is not None
        residual = joined(images - solution.reconstruction)
        filters, dead = reseed(filters, usage(seen), residual, problem)
        seen = without(seen, dead)
        memory = {name: getattr(seen, name) for name in PARTS} | {"turn": torch.tensor(turn)}
        mean = float(summed(torch.tensor(objective, dtype=torch.float64))) / len(problem.images)
        return Pass(filters, memory, mean, len(dead))
