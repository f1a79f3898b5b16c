"""One perturbation for all images: learnt on some, added to others."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quasinat.arrays import Image, Images, Labels
from quasinat.attacks.budget import Budget, Dissimilarity, Linf
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.deepfool import deepfool
from quasinat.attacks.goal import Goal
from quasinat.attacks.model_access import attacking, logits_of, loss_and_gradient
from quasinat.attacks.result import AttackResult, judged
from quasinat.errors import InputError, UsageError, did_you_mean

METHODS = ["deepfool", "gradient"]
CLIPPED_LOSS = 9.0  # of the gradient method: an image whose loss is above counts no more
JUDGED_AT_A_TIME = 256  # images of one forward pass where nothing is learnt
STRIDE = 0.2  # of the gradient method: the length of one step in radii


@dataclass(frozen=True)
class UniversalPerturbation:
    """What was learnt.

    Attributes:
        perturbation: what is added to every image, `C H W`.
        fooling_rate: the share of the training images that it fools, added as `universal` adds it.
        passes: over the training images, until this perturbation.
    """

    perturbation: Image
    fooling_rate: float
    passes: int


def universal_perturbation(
    model: nn.Module,
    images: Images,
    labels: Labels | None = None,
    *,
    budget: Budget,
    method: str = "deepfool",
    fooling_rate: float = 0.8,
    passes: int = 10,
    steps: int = 10,
    overshoot: float = 0.02,
    candidates: int = 10,
    batch_size: int = 16,
    seed: int = 0,
    on_pass: Callable[[int, float], None] | None = None,
) -> UniversalPerturbation:
    """Learns one perturbation that fools the model on most images; `universal` adds it to images of another set.

    `deepfool` is the publication's (Moosavi-Dezfooli et al. 2017, Algorithm 1): an image that x + v does not fool yet
    is pushed over the boundary from there by DeepFool, and its push is added to v, which is projected on the ball. It
    is done a batch at a time: all images of a batch are pushed from the same v, and the *sum* of their pushes is
    added, as the publication adds each; with their mean v grows a batch size more slowly (a small CIFAR-10 net, 5
    passes of 100 images at 10/255: the sum fools 24 % of other images, the mean 10 %). A `batch_size` of 1 is the
    publication's loop exactly. The fooling rate swings from pass to pass; the best v is kept.

    `gradient` climbs the loss by stochastic steps (Shafahi et al. 2020, section 3): v moves along the budget's
    direction (the sign, or the normalised gradient) of the batch's summed gradient. The cross-entropy is clipped from
    above, so that images that are long lost do not rule the sum. It is the stronger one, at a fraction of the cost
    (in the same setting 36 %, in a quarter of the time): take it where the worst case counts.

    The ball of v is the budget's; under `Dissimilarity`, whose radius differs from image to image, it is the L2 ball
    of the training images' mean radius. What is returned is the best v after any pass, the later one of equals. It
    depends on the order of the images, which the seed draws, and on the batch size.

    Args:
        model: images to logits.
        images: the training images, `B C H W` in [0, 1]; keep those that the attack is judged on apart.
        labels: the classes to leave; by default the model's own decisions, as in the publication.
        budget: per image.
        method: `deepfool` or `gradient`.
        fooling_rate: enough, in (0, 1]; the learning ends after the pass that reaches it.
        passes: at most.
        steps: of DeepFool for one push, at most; a push that does not change the class is not added.
        overshoot: of DeepFool.
        candidates: of DeepFool.
        batch_size: images of one update.
        seed: of the order of the images.
        on_pass: called with the passes done and the fooling rate after them.

    Raises:
        InputError: no images, or a batch or a model that cannot be attacked.
        UsageError: an unknown method, or an option out of its range.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}", did_you_mean(method, METHODS))
    if not 0 < fooling_rate <= 1:
        raise UsageError(f"fooling_rate is {fooling_rate}", "give a share above 0 and at most 1")
    for name, count in (("passes", passes), ("batch_size", batch_size), ("steps", steps)):
        check_count(name, count)
    check_count("candidates", candidates, least=2)
    check_number("overshoot", overshoot, zero=True)
    given = torch.zeros(len(images), dtype=torch.int64, device=images.device) if labels is None else labels
    generator = torch.Generator().manual_seed(seed)
    with attacking(model, images, given) as (clean, goal):
        if not len(clean):
            raise InputError("there are no images to learn a perturbation from", "give at least one")
        goal = Goal(_decisions(model, clean, goal)) if labels is None else goal
        v, radius = torch.zeros_like(clean[0]), budget.reach(clean).mean()
        best = UniversalPerturbation(v, _rate(model, clean, goal, v, budget), 0)
        for done in range(1, passes + 1):
            for rows in torch.randperm(len(clean), generator=generator).to(clean.device).split(batch_size):
                here, aim = add_universal(clean[rows], v, budget), goal.of(rows)
                if method == "deepfool":
                    v = v + _pushes(model, here, aim, steps, overshoot, candidates)
                else:
                    v = v + STRIDE * radius * _ascent(model, here, aim, budget, rows)
                v = _in_ball(v, budget, float(radius))
            rate = _rate(model, clean, goal, v, budget)
            if rate >= best.fooling_rate:
                best = UniversalPerturbation(v, rate, done)
            if on_pass is not None:
                on_pass(done, rate)
            if rate >= fooling_rate:
                break
        return best


def universal(
    model: nn.Module, images: Images, labels: Labels, *, budget: Budget, perturbation: Tensor
) -> AttackResult:
    """Adds one perturbation to every image, see `add_universal`; costs no query but the re-check.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1]; not those that the perturbation was learnt on.
        labels: the classes to leave: the true ones or, for the publication's fooling rate, the model's own decisions.
        budget: per image.
        perturbation: `C H W`, from `universal_perturbation`; of this model or, for a transfer, of another.

    Raises:
        InputError: a batch or a model that cannot be attacked, or a perturbation of another shape or not finite.
    """
    with attacking(model, images, labels) as (clean, goal):
        if perturbation.shape != clean.shape[1:]:
            problem = f"the perturbation is {tuple(perturbation.shape)}, the images are {tuple(clean.shape[1:])}"
            raise InputError(problem, "learn one on images of this size")
        if not bool(perturbation.isfinite().all()):
            raise InputError("the perturbation holds NaN or infinity", "learn it anew")
        return judged(model, add_universal(clean, perturbation.detach().to(clean), budget), goal, queries=0)


def add_universal(images: Images, perturbation: Image, budget: Budget) -> Images:
    """x + v, projected on each image's ball and clipped to [0, 1].

    Under `Dissimilarity` v is first scaled to each image's own radius, longer or shorter, as every other attack uses
    each image's budget up.
    """
    everywhere = perturbation.expand_as(images)
    if isinstance(budget, Dissimilarity):
        everywhere = budget.scaled(images, everywhere)
    return budget.project(images, images + everywhere)


def _pushes(model: nn.Module, here: Images, goal: Goal, steps: int, overshoot: float, candidates: int) -> Image:
    """The sum of the steps to the nearest boundaries, of the images that are not over one yet.

    An image that is over one already does not move in `deepfool`.
    """
    pushed = deepfool(model, here, goal.labels, steps=steps, overshoot=overshoot, candidates=candidates)
    return (pushed.images - here)[pushed.success].sum(0)


def _ascent(model: nn.Module, here: Images, goal: Goal, budget: Budget, rows: Tensor) -> Image:
    """The direction of the mean gradient of the clipped loss, of unit length in the budget's norm."""
    losses, _, gradient = loss_and_gradient(model, here, goal, rows=rows)
    direction = budget.step_direction(gradient[losses < CLIPPED_LOSS].sum(0, keepdim=True))
    length = budget.norms(direction)
    return (direction / torch.where(length > 0, length, 1))[0]


def _in_ball(v: Image, budget: Budget, radius: float) -> Image:
    """The nearest point of the ball of this radius."""
    if isinstance(budget, Linf):
        return v.clamp(-radius, radius)
    length = float(budget.norms(v[None]))
    return v * (radius / length) if length > radius else v


@torch.no_grad()
def _decisions(model: nn.Module, images: Images, goal: Goal) -> Labels:
    rows = torch.arange(len(images), device=images.device).split(JUDGED_AT_A_TIME)
    return torch.cat([logits_of(model, images[part], goal.of(part), part).argmax(1) for part in rows])


def _rate(model: nn.Module, images: Images, goal: Goal, v: Image, budget: Budget) -> float:
    """The share of the images that v fools."""
    said = _decisions(model, add_universal(images, v, budget), goal)
    return float((said != goal.labels).double().mean())
