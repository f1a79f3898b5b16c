"""The L2 attack of Carlini and Wagner."""

from dataclasses import dataclass

import torch
from torch import nn

from quasinat.arrays import Images, Labels, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.goal import Goal
from quasinat.attacks.held_to import held_to
from quasinat.attacks.model_access import OnStep, attacking, input_gradient, logits_of, part_of, watched
from quasinat.attacks.result import AttackResult, judged

FIRST_DECAY, SECOND_DECAY, ADAM_EPSILON = 0.9, 0.999, 1e-8  # Adam's usual constants (Kingma & Ba 2015)
SHRINK = 1e-6  # of the pixels towards grey, so that black and white have a finite arctanh


@dataclass(frozen=True)
class Smallest:
    """The smallest successful iterate of each image and its squared L2 distance, infinite where there is none."""

    images: Images
    squared: PerImage


@dataclass(frozen=True)
class Settings:
    """The numbers of the attack, checked."""

    steps: int
    search_steps: int
    learning_rate: float
    initial_constant: float
    confidence: float

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_count("search_steps", self.search_steps)
        check_number("learning_rate", self.learning_rate)
        check_number("initial_constant", self.initial_constant)
        check_number("confidence", self.confidence, zero=True)


def carlini_wagner(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | None = None,
    targets: Labels | None = None,
    steps: int = 200,
    search_steps: int = 9,
    learning_rate: float = 0.01,
    initial_constant: float = 1e-3,
    confidence: float = 0.0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """The smallest L2 perturbation that Adam finds in tanh space (Carlini & Wagner 2017, section VI.A).

    Minimises ||x' - x||^2 + c f(x'), f the margin of the label (or that by which the target falls short), with a binary
    search over c for each image. Each image keeps its smallest successful iterate; one that never succeeds is returned
    at its last iterate, without success. An image that reaches the goal by `confidence` at the start stays as it is.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: if given, each perturbation is rescaled to it along its direction and clipped (see `held_to`), and
            success is judged there.
        targets: the classes wanted, if the attack is to be targeted.
        steps: of Adam for one c; the first one looks at the image itself.
        search_steps: values of c; with few of them the last may be too small to succeed, or far too large.
        learning_rate: of Adam.
        initial_constant: the first c; multiplied by 10 until the attack succeeds.
        confidence: the margin (kappa) by which another class must lead.
        on_step: called with the steps done and the steps in all, over all values of c.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: a number of steps under 1, or another number out of its range.
    """
    settings = Settings(steps, search_steps, learning_rate, initial_constant, confidence)
    with attacking(model, images, labels, targets) as (clean, goal):
        with torch.no_grad():
            excess = goal.loss("margin", logits_of(model, clean, goal))
        rows = (~_reached(excess, confidence)).nonzero()[:, 0]
        perturbed, queries = clean.clone(), torch.ones_like(goal.labels)
        if len(rows):
            perturbed[rows] = _search(model, clean[rows], goal.of(rows), rows, settings, on_step)
            queries[rows] += 2 * steps * search_steps
        if budget is not None:
            perturbed = held_to(clean, perturbed, budget)
        return judged(model, perturbed, goal, queries)


def _search(
    model: nn.Module,
    images: Images,
    goal: Goal,
    rows: PerImageInt,
    settings: Settings,
    on_step: OnStep | None,
) -> Images:
    """The binary search over c, per image: times 10 until it succeeds, then halving the bracket."""
    constants = images.new_full((len(images),), settings.initial_constant)
    lower, upper = torch.zeros_like(constants), torch.full_like(constants, torch.inf)
    best, last = Smallest(images, torch.full_like(constants, torch.inf)), images
    for search in range(settings.search_steps):
        report = part_of(on_step, search, settings.search_steps)
        found, last = _descend(model, images, goal, rows, constants, settings, report)
        best = _smaller(best, found)
        succeeded = found.squared.isfinite()
        upper, lower = torch.where(succeeded, constants, upper), torch.where(succeeded, lower, constants)
        constants = torch.where(upper.isfinite(), (lower + upper) / 2, constants * 10)
    return torch.where(best.squared.isfinite()[:, None, None, None], best.images, last)


def _smaller(first: Smallest, second: Smallest) -> Smallest:
    swap = second.squared < first.squared
    images = torch.where(swap[:, None, None, None], second.images, first.images)
    return Smallest(images, torch.where(swap, second.squared, first.squared))


def _descend(
    model: nn.Module,
    images: Images,
    goal: Goal,
    rows: PerImageInt,
    constants: PerImage,
    settings: Settings,
    on_step: OnStep | None,
) -> tuple[Smallest, Images]:
    """Adam on w, x' = (tanh(w) + 1) / 2, for one c per image: the smallest successful iterate and the last one."""
    w = ((2 * images - 1) * (1 - max(SHRINK, torch.finfo(images.dtype).eps))).atanh()
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    smallest, squared = images.clone(), torch.full_like(constants, torch.inf)
    c, current = constants[:, None, None, None], images
    for step in range(1, settings.steps + 1):
        tangent = w.tanh()
        current = (tangent + 1) / 2
        leaf = watched(current)
        excess = goal.loss("margin", logits_of(model, leaf, goal, rows))
        slopes = input_gradient((settings.confidence - excess).clamp(min=0), leaf, rows)
        moved = current - images
        lengths = moved.flatten(1).square().sum(1)
        improved = _reached(excess, settings.confidence) & (lengths < squared)
        squared = torch.where(improved, lengths, squared)
        smallest[improved] = current[improved]

        gradient = (2 * moved + c * slopes) * (1 - tangent.square()) / 2
        first.mul_(FIRST_DECAY).add_(gradient, alpha=1 - FIRST_DECAY)
        second.mul_(SECOND_DECAY).addcmul_(gradient, gradient, value=1 - SECOND_DECAY)
        scale = (second / (1 - SECOND_DECAY**step)).sqrt_().add_(ADAM_EPSILON)
        w.addcdiv_(first, scale, value=-settings.learning_rate / (1 - FIRST_DECAY**step))
        if on_step is not None:
            on_step(step, settings.steps)
    return Smallest(smallest, squared), current


def _reached(excess: PerImage, confidence: float) -> PerImageBool:
    return (excess > 0) & (excess >= confidence)
