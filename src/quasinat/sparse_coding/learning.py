"""Dictionary learning: Eq. (2) is biconvex, so codes and filters take turns (the paper, section 3.3)."""

from collections.abc import Callable
from dataclasses import replace

import torch

from quasinat.arrays import Filters
from quasinat.errors import UsageError, did_you_mean
from quasinat.parallel import mine, summed
from quasinat.sparse_coding.auto import Auto
from quasinat.sparse_coding.batch import Batch
from quasinat.sparse_coding.consensus import Consensus
from quasinat.sparse_coding.dictionary import Dictionary, ImageSource, Start, starting_filters
from quasinat.sparse_coding.dictionary_problem import DictionaryProblem, Learner, LearningState, together
from quasinat.sparse_coding.online import Online
from quasinat.sparse_coding.proximal import Constraint
from quasinat.sparse_coding.solve import Solver

LEARNERS: dict[str, type[Learner]] = {"batch": Batch, "online": Online, "consensus": Consensus}
MANY = 1024  # images from which "auto" learns online


@torch.no_grad()
def learn_dictionary(
    images: ImageSource,
    *,
    filters: int = 64,
    size: int = 8,
    sparsity: float = 0.2,
    passes: int = 8,
    tolerance: float = 1e-3,
    learner: str | Learner = "auto",
    constraint: Constraint = "joint",
    zero_mean: bool = False,
    start: Start | Filters = "patches",
    held_out: ImageSource | None = None,
    seed: int = 0,
    resume: LearningState | None = None,
    on_pass: Callable[[LearningState], None] | None = None,
) -> Dictionary:
    """Learns filters shared by all the images, with codes shared over the channels.

    Several processes that call it with the same arguments share the coding, and all of them get the dictionary that one
    would learn, up to rounding.

    Args:
        images: what is to be coded, `N C H W` or an `ImageSource`: any real values, the high-pass part under
            `split="tikhonov"`.
        filters: K, 1 to 512.
        size: S, 3 to 16.
        sparsity: lambda.
        passes: over the images, at most.
        tolerance: learning ends early once a pass changes the objective (of the held-out images, where there are some)
            by less than this share.
        learner: an instance, or a name in `LEARNERS`; "auto" is `Batch()` up to 1,024 images and `Online()` above.
        constraint, zero_mean: on the filters, see `project_filters`.
        start: "patches", "noise", or filters.
        held_out: images that no filter is fitted to, whose objective is reported after every pass.
        seed: of the initial filters and of the order of the images.
        resume: a state that `on_pass` was given in an earlier run with the same arguments.
        on_pass: called with the state after every pass, and once before the first.

    Returns:
        The dictionary, with the curves of the learning.

    Raises:
        InputError: images that cannot be coded (NaN, flat, smaller than the filters).
        UsageError: an unknown learner, constraint or start, or a value out of range.

    Examples:
        >>> import torch
        >>> from quasinat import learn_dictionary
        >>> images = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(0)) - 0.5
        >>> dictionary = learn_dictionary(images, filters=4, size=3, sparsity=0.1, passes=2)
        >>> dictionary.filters.shape, dictionary.curve[1] < dictionary.curve[0]
        (torch.Size([4, 1, 3, 3]), True)
    """
    learner = chosen_learner(learner, len(images))
    if passes < 0:
        raise UsageError(f"{passes} passes", "ask for none or more")
    problem = DictionaryProblem(images, sparsity, constraint, zero_mean)
    state = resume
    if state is None:
        initial = starting_filters(
            images, start, filters=filters, size=size, constraint=constraint, zero_mean=zero_mean, seed=seed
        )
        state = LearningState(initial, held_out=_held_out(problem, initial, held_out))
        if on_pass:
            on_pass(state)
    while state.passes < passes and not settled(state, tolerance):
        generator = torch.Generator().manual_seed(1_000_003 * seed + state.passes)
        done = learner.run_pass(problem, state, generator)
        state = LearningState(
            filters=done.filters,
            passes=state.passes + 1,
            curve=(*state.curve, done.objective),
            held_out=state.held_out + _held_out(problem, done.filters, held_out),
            reseeded=state.reseeded + done.reseeded,
            memory=done.memory,
        )
        if on_pass:
            on_pass(state)
    return Dictionary(
        state.filters, constraint, sparsity, state.curve, len(images), zero_mean, state.held_out, state.reseeded
    )


def settled(state: LearningState, tolerance: float) -> bool:
    """Whether the last pass changed the objective by less than the share `tolerance`."""
    curve = state.held_out or state.curve
    return len(curve) > 1 and abs(curve[-2] - curve[-1]) < tolerance * abs(curve[-2])


def chosen_learner(learner: str | Learner, images: int) -> Learner:
    """The instance that the caller names."""
    if not isinstance(learner, str):
        return learner
    if learner == "auto":
        return Batch() if images <= MANY else Online()
    if learner not in LEARNERS:
        raise UsageError(f"unknown learner {learner!r}", did_you_mean(learner, ["auto", *LEARNERS]))
    return LEARNERS[learner]()


def _held_out(problem: DictionaryProblem, filters: Filters, images: ImageSource | None) -> tuple[float, ...]:
    """The mean objective of the held-out images, if there are some."""
    if images is None or len(images) == 0:
        return ()
    solver: Solver = Auto(tolerance=5e-3)
    watched = replace(problem, images=images)
    shares = (watched.read(mine(rows)) for rows in torch.arange(len(images)).split(together(images)))
    total = sum(float(problem.code(share, filters, solver).objective.double().sum()) for share in shares)
    return (float(summed(torch.tensor(total, dtype=torch.float64))) / len(images),)
