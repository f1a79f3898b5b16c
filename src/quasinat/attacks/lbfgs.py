"""The box-constrained L-BFGS attack, the first of all."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_count, check_number
from quasinat.attacks.goal import Goal
from quasinat.attacks.held_to import held_to
from quasinat.attacks.model_access import OnStep, attacking, input_gradient, logits_of, part_of, watched
from quasinat.attacks.result import AttackResult, judged

MEMORY = 10  # pairs that make up the quasi-Newton matrix (Nocedal & Wright 2006, section 7.2)
DECREASE = 1e-4  # Armijo's constant: the share of the linear prediction that a step has to gain
SHORTEST = 1e-4  # a line search below this share of its step has stalled
FLAT = 1e-5  # where the projected gradient step moves no pixel by more, there is a minimum (SciPy's default too)


def lbfgs(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget | None = None,
    targets: Labels | None = None,
    steps: int = 30,
    search_steps: int = 9,
    initial_constant: float = 1.0,
    on_step: OnStep | None = None,
) -> AttackResult:
    """A small L2 perturbation towards a class, found by box-constrained L-BFGS (Szegedy et al. 2014, section 4.1).

    Minimises c ||r||^2 + loss(x + r, target) over x + r in [0, 1], the loss the cross-entropy, from r = 0 on, and
    searches for the c at which the minimiser just reaches the goal, for each image. The norm is squared, as in the
    usual implementations: its gradient exists at the start then. Without targets the class aimed at is the second
    choice of the model on the clean image, and any error counts. All images advance together, at one evaluation each:
    the minimiser is a projected L-BFGS with an Armijo search along the projected path.

    Each image keeps its smallest successful iterate; one that never succeeds is returned at its last iterate, without
    success. An image that reaches the goal at the start stays as it is.

    Args:
        model: images to logits.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: if given, each perturbation is rescaled to it along its direction and clipped (see `held_to`), and
            success is judged there.
        targets: the classes wanted, if the attack is to be targeted, as in the publication.
        steps: evaluations of loss and gradient for one c, the line searches included; an image whose minimisation has
            converged stops earlier, and costs no more.
        search_steps: values of c.
        initial_constant: the first c; multiplied by 10 while the minimiser reaches the goal, or divided by 10 while it
            does not; once both have happened, the geometric mean of the bracket follows.
        on_step: called with the steps done and the steps in all, over all values of c.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: a number of steps under 1, or a constant that is not a positive number.
    """
    check_count("steps", steps)
    check_count("search_steps", search_steps)
    check_number("initial_constant", initial_constant)
    with attacking(model, images, labels, targets) as (clean, goal):
        with torch.no_grad():
            logits = logits_of(model, clean, goal)
        rows = (~goal.reached(logits)).nonzero()[:, 0]
        perturbed, queries = clean.clone(), torch.ones_like(goal.labels)
        if len(rows):
            second = logits.scatter(1, goal.labels[:, None], -torch.inf).argmax(1)
            wanted = (second if goal.targets is None else goal.targets)[rows]
            function = _Function(model, clean[rows], goal.of(rows), wanted, rows)
            perturbed[rows] = _search(function, steps, search_steps, initial_constant, on_step)
            queries[rows] += function.queries
        if budget is not None:
            perturbed = held_to(clean, perturbed, budget)
        return judged(model, perturbed, goal, queries)


class _Function:
    """c ||x - x0||^2 + loss(x) of each image; remembers the smallest x that reached the goal.

    The points are flat, `B N`, in single precision at least, whatever the images are.
    """

    def __init__(self, model: nn.Module, images: Images, goal: Goal, wanted: Labels, rows: PerImageInt) -> None:
        self.model, self.images, self.goal, self.rows = model, images, goal, rows
        self.aim = Goal(goal.labels, wanted)
        self.start = images.flatten(1).to(torch.promote_types(images.dtype, torch.float32))
        self.constants = torch.zeros_like(self.start[:, 0])
        self.queries = torch.zeros_like(rows)
        self.smallest, self.squared = images.clone(), torch.full_like(self.constants, torch.inf)

    def __call__(self, points: Tensor, chosen: PerImageInt) -> tuple[PerImage, Tensor, PerImageBool]:
        """Value and gradient at `points` of the images `chosen`, and whether the goal is reached there."""
        seen = points.view(-1, *self.images.shape[1:]).to(self.images.dtype)
        leaf, aim, numbers = watched(seen), self.aim.of(chosen), self.rows[chosen]
        logits = logits_of(self.model, leaf, aim, numbers)
        losses = -aim.loss("cross-entropy", logits)
        gradients = input_gradient(losses, leaf, numbers).flatten(1).to(points)
        self.queries[chosen] += 2

        moved, c = points - self.start[chosen], self.constants[chosen]
        squared, hit = moved.square().sum(1), self.goal.of(chosen).reached(logits)
        better = hit & (squared < self.squared[chosen])
        self.smallest[chosen[better]], self.squared[chosen[better]] = seen[better], squared[better]
        return losses.detach().to(squared) + c * squared, gradients + 2 * c[:, None] * moved, hit


def _search(
    function: _Function, steps: int, search_steps: int, initial_constant: float, on_step: OnStep | None
) -> Images:
    """The largest c whose minimiser reaches the goal, per image: by factors of 10, then between the bracket's ends."""
    constants = torch.full_like(function.constants, initial_constant)
    lower, upper = torch.zeros_like(constants), torch.full_like(constants, torch.inf)
    last, everyone = function.start, torch.arange(len(constants), device=constants.device)
    value, gradient, _ = function(function.start, everyone)  # the same for every c
    for search in range(search_steps):
        function.constants = constants
        last, reached = _minimise(function, value, gradient, steps, part_of(on_step, search, search_steps))
        lower, upper = torch.where(reached, constants, lower), torch.where(reached, upper, constants)
        constants = torch.where(upper.isinf(), constants * 10, (lower * upper).sqrt())
        constants = torch.where(lower == 0, upper / 10, constants)
    found = function.squared.isfinite()[:, None, None, None]
    return torch.where(found, function.smallest, last.view_as(function.images).to(function.images.dtype))


@dataclass
class _Pairs:
    """The last steps and changes of the gradient of each image, `M B N`; those not yet made are zero."""

    steps: Tensor
    changes: Tensor

    def add(self, chosen: PerImageBool, step: Tensor, change: Tensor) -> None:
        """The newest pair of the images `chosen`, which forget their oldest one."""
        for kept, new in ((self.steps, step), (self.changes, change)):
            kept[:, chosen] = torch.cat([kept[1:, chosen], new[None, chosen]])

    def direction(self, gradient: Tensor, free: Tensor) -> Tensor:
        """-H g by the two-loop recursion (Nocedal & Wright 2006, Algorithm 7.4), within the `free` pixels.

        A pair without positive curvature there has no effect. Without any pair it is the steepest descent, of at most
        unit length.
        """
        q = gradient * free
        steps, changes = self.steps * free, self.changes * free
        curvature, size = (steps * changes).sum(2), changes.square().sum(2)
        rho = torch.where(curvature > 1e-10 * size, 1 / curvature, 0)
        scale = 1 / q.square().sum(1).sqrt().clamp(min=1)
        alphas = torch.zeros_like(rho)
        for i in reversed(range(len(rho))):
            alphas[i] = rho[i] * (steps[i] * q).sum(1)
            q = q - alphas[i][:, None] * changes[i]
        for i in range(len(rho)):
            scale = torch.where(rho[i] > 0, curvature[i] / size[i], scale)
        q = q * scale[:, None]
        for i in range(len(rho)):
            beta = rho[i] * (changes[i] * q).sum(1)
            q = q + (alphas[i] - beta)[:, None] * steps[i]
        return -q


def _minimise(
    function: _Function, value: PerImage, gradient: Tensor, steps: int, on_step: OnStep | None
) -> tuple[Tensor, PerImageBool]:
    """The minimiser for the function's c, and whether it reaches the goal; `value` and `gradient` are at the start.

    x <- P(x - a H g), P the clipping to the box, H on the pixels that the gradient does not push against a bound (a
    two-metric projection: Bertsekas 1982), a halved until the value falls by `DECREASE` of the linear prediction.
    """
    x, pairs = function.start, _Pairs(*(function.start.new_zeros(MEMORY, *function.start.shape) for _ in range(2)))
    reached, length = torch.zeros_like(function.rows, dtype=torch.bool), torch.ones_like(value)
    direction = pairs.direction(gradient, _free(x, gradient))
    working = (~_flat(x, gradient)).nonzero()[:, 0]
    for step in range(steps):
        if len(working):
            trial = (x + length[:, None] * direction).clamp(0, 1)
            new_value, new_gradient, hit = value.clone(), gradient.clone(), reached.clone()
            new_value[working], new_gradient[working], hit[working] = function(trial[working], working)
            at_work = torch.zeros_like(reached).index_fill(0, working, True)
            predicted = (gradient * (trial - x)).sum(1)
            taken = at_work & (new_value <= value + DECREASE * predicted)
            where = taken[:, None]
            pairs.add(taken, trial - x, new_gradient - gradient)
            gain = value - new_value
            x, gradient = torch.where(where, trial, x), torch.where(where, new_gradient, gradient)
            value, reached = torch.where(taken, new_value, value), torch.where(taken, hit, reached)
            direction = torch.where(where, pairs.direction(gradient, _free(x, gradient)), direction)
            length = torch.where(taken, 1, length / 2)
            done = torch.where(
                taken, _flat(x, gradient) | (gain <= torch.finfo(x.dtype).eps * value.abs()), length < SHORTEST
            )
            working = (at_work & ~done).nonzero()[:, 0]
        if on_step is not None:
            on_step(step + 1, steps)
    return x, reached


def _free(x: Tensor, gradient: Tensor) -> Tensor:
    """The pixels that a descent does not push against their bound."""
    return ~(((x <= 0) & (gradient > 0)) | ((x >= 1) & (gradient < 0)))


def _flat(x: Tensor, gradient: Tensor) -> PerImageBool:
    return ((x - gradient).clamp(0, 1) - x).abs().amax(1) <= FLAT
