"""The checks of a white-box evaluation: without all of the mandatory ones there is no headline figure."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from quasinat.attacks import Budget, Linf, pgd
from quasinat.evaluation.binarisation import binarisation
from quasinat.evaluation.check import Check, judged, not_run
from quasinat.experiments.white_box import WhiteBox, file_of
from quasinat.experiments.white_box_gradients import (
    gradients_agree,
    gradients_are_trusted,
    gradients_do_not_vanish,
    is_deterministic,
    three_losses,
)
from quasinat.experiments.white_box_rows import Row, persistent, steepest
from quasinat.experiments.workspace import Step
from quasinat.files import read_tensors

MORE = 4  # random starts, to see whether they help
PLATEAU = 0.02  # accuracy that twice the effort may still take
PLANTED, GUESSED = 0.9, 0.1  # share of planted examples that must be found, and that chance may find
ROUNDING = 1e-6  # of float32, on a norm


def all_checks(run: WhiteBox, folder: Path) -> list[Check]:
    """Every check, in the order of the table."""
    return [
        gradients_agree(run),
        gradients_are_trusted(run),
        gradients_do_not_vanish(run),
        is_deterministic(run),
        unbounded_reaches_zero(run),
        falls_with_the_budget(run),
        more_steps_change_little(run),
        more_restarts_change_little(run),
        white_box_is_no_weaker(run),
        true_gradient_is_no_weaker(run),
        three_losses(run),
        finds_planted_examples(run),
        budgets_hold(run, folder),
        budgets_hold_after_rounding(run, folder),
        references_are_in_the_table(run),
    ]


def preparations(run: WhiteBox) -> list[Callable[[], Any]]:
    """The checks' own steps that need no other: what processes can share."""
    alone = (gradients_agree, gradients_do_not_vanish, unbounded_reaches_zero, finds_planted_examples)
    steps = [partial(_after, run, used) for used in _curve(run)]
    return [*(partial(check, run) for check in alone), *steps, partial(_with_more_restarts, run)]


def unbounded_reaches_zero(run: WhiteBox) -> Check:
    """Whoever may change every pixel at will must win."""
    count = min(run.settings.check_images, len(run.images))
    options = {"steps": run.settings.steps, "restarts": 3}
    left = [_left(run, f"check-unbounded-{loss}", Linf(math.inf), count, loss=loss, **options) for loss in _PAIR]
    standing = int((left[0] & left[1]).sum())
    figure = f"{standing} of {count} images withstand an attack without a bound"
    return judged("unbounded", "accuracy is 0 with an unbounded budget", standing == 0, figure, standing=standing)


_PAIR = ("cross-entropy", "margin")


def falls_with_the_budget(run: WhiteBox) -> Check:
    """A larger ball holds the smaller one's adversarial examples."""
    title = "accuracy falls as the budget grows"
    budgets = run.settings.linf()
    if len(budgets) < 2:
        return not_run("monotone", title, "there is one L-infinity budget only")
    keys = run.rows("defended", "gradient")
    values = [1 - float(run.fallen(keys, budget).float().mean()) for budget in budgets]
    held = all(b < a or a == b == 0 for a, b in pairwise(values))
    figure = ", ".join(f"{budget}: {100 * value:.1f} %" for budget, value in zip(budgets, values, strict=True))
    return judged("monotone", title, held, figure, accuracy=dict(zip(budgets, values, strict=True)))


def more_steps_change_little(run: WhiteBox) -> Check:
    """Twice the steps must not lower the worst case by more than two points; at the smallest budget.

    Along the margin: where the cross-entropy is saturated, no number of its steps changes anything.
    """
    budget, count, steps = run.settings.linf()[0], _checked(run), run.settings.steps
    before = ~run.fallen(run.rows(), budget, count)
    left = {used: _after(run, used) for used in _curve(run)}
    curve = {str(used): float(standing.float().mean()) for used, standing in left.items()}  # as JSON has them
    gain = float((before & ~left[2 * steps]).float().mean())
    shown = ", ".join(f"{used}: {100 * value:.0f} %" for used, value in curve.items())
    figure = (
        f"{budget}, n = {count}: accuracy after steps {shown}; {2 * steps} steps lower the worst case by {gain:.1%}"
    )
    return judged("steps", "more steps change little", gain <= PLATEAU, figure, curve=curve, gain=gain, n=count)


def _curve(run: WhiteBox) -> list[int]:
    """A quarter of the steps, half, all and twice."""
    return sorted({max(1, round(share * run.settings.steps)) for share in (0.25, 0.5, 1, 2)})


def _after(run: WhiteBox, steps: int) -> torch.Tensor:
    ball, count = _ball(run, run.settings.linf()[0]), _checked(run)
    return _left(run, f"check-steps-{steps}", ball, count, loss="margin", steps=steps, restarts=1)


def more_restarts_change_little(run: WhiteBox) -> Check:
    """Four more random starts must not lower the worst case by more than two points; at the smallest budget."""
    budget, count, restarts = run.settings.linf()[0], _checked(run), run.settings.restarts
    before = ~run.fallen(run.rows(), budget, count)
    gain = float((before & ~_with_more_restarts(run)).float().mean())
    instead = f"{restarts + MORE} starts instead of {restarts}"
    figure = f"{budget}, n = {count}: {instead} lower the worst case by {gain:.1%}"
    return judged("restarts", "more restarts change little", gain <= PLATEAU, figure, gain=gain, n=count)


def _with_more_restarts(run: WhiteBox) -> torch.Tensor:
    ball, count = _ball(run, run.settings.linf()[0]), _checked(run)
    restarts, steps = run.settings.restarts + MORE, run.settings.steps
    return _left(run, f"check-restarts-{restarts}", ball, count, loss="margin", steps=steps, restarts=restarts)


def white_box_is_no_weaker(run: WhiteBox) -> Check:
    """Whoever sees the gradient must do at least as well as whoever does not, on the same images."""
    keys, blind = run.rows("defended", "gradient"), run.rows("defended", "blind")
    title = "white-box is no weaker than Square, transfer and random noise"
    if "square" not in blind:
        return not_run("blind", title, f"Square: {run.missing('square')}")
    if not {"oblivious", "transfer"} & set(blind):
        return not_run("blind", title, f"transfer: {run.missing('oblivious')}")
    if not keys:
        return not_run("blind", title, "no row follows a gradient")
    held, parts, values = True, [], {}
    for budget in run.settings.budgets:
        shown = []
        for key in blind:
            theirs = run.cell(key, budget)[0]["fallen"]
            ours = run.fallen(keys, budget, len(theirs))
            held &= bool(ours.sum() >= theirs.sum())
            pair = values[f"{key}/{budget}"] = [1 - float(fallen.float().mean()) for fallen in (ours, theirs)]
            shown.append(f"{100 * pair[0]:.0f} against {100 * pair[1]:.0f} % of {key} (n = {len(theirs)})")
        parts.append(f"{budget}: {', '.join(shown)}")
    return judged("blind", title, held, "; ".join(parts), accuracy=values)


def true_gradient_is_no_weaker(run: WhiteBox) -> Check:
    """PGD along the true gradient against PGD along the identity, equal in all else."""
    title = "the implicit gradient is no weaker than the identity"
    if not {"implicit", "identity"} <= set(run.rows()):
        return not_run("identity", title, "there is no layer with a gradient of its own", mandatory=False)
    values = {
        budget: [1 - float(run.fallen([key], budget).float().mean()) for key in ("implicit", "identity")]
        for budget in run.settings.budgets
    }
    held = all(true <= identity for true, identity in values.values())
    shown = ", ".join(f"{budget}: {100 * t:.1f} against {100 * i:.1f} %" for budget, (t, i) in values.items())
    return judged("identity", title, held, shown, mandatory=False, accuracy=values)


def finds_planted_examples(run: WhiteBox) -> Check:
    """The binarisation test (Zimmermann et al. 2022): where an adversarial example was planted, it is found."""
    settings, budget = run.settings, run.settings.linf()[-1]
    count = min(settings.binarisation_images, len(run.images))
    options: dict[str, Any] = {"steps": settings.steps, "until_success": True, "seed": settings.seed}

    def compute() -> Step:
        with run.progress.task("check: planted adversarial examples", count) as report:
            found = binarisation(
                run.parties.best(settings),
                run.images[:count],
                budget=_ball(run, budget),
                attack=partial(pgd, **options),
                seed=settings.seed,
                on_image=lambda done, of: report(done),
            )
        kept = {"success": found.success, "random": found.random_success, "valid": found.valid}
        return {name: value.cpu() for name, value in kept.items()}, {}

    found = run.workspace.step("check-binarisation", compute)[0]
    valid = found["valid"].bool()
    n = int(valid.sum())
    title = "finds planted adversarial examples (binarisation test)"
    if not n:
        return not_run("binarisation", title, "no image gave a task that its features separate")
    success, chance = (float(found[name][valid].double().mean()) for name in ("success", "random"))
    figure = f"{budget}: {success:.0%} of {n} found (of {count} images), random points find {chance:.1%}"
    held = success >= PLANTED and chance <= GUESSED
    return judged("binarisation", title, held, figure, success=success, random=chance, n=n)


def budgets_hold(run: WhiteBox, folder: Path) -> Check:
    """The saved images are in their balls, and fool the model again, as the table says, when they are read back."""
    excess, wrong, n = 0.0, 0, 0
    for budget, ball in run.settings.balls().items():
        images, fallen = _saved(run, folder, budget)
        size = ball.measure(run.images, images)
        excess = max(excess, float((size - ball.size).max()), -float(images.min()), float(images.max()) - 1)
        told = run.fallen(run.rows(), budget).to(fallen.device)
        again = run.judged("defended", images.clamp(0, 1), run.labels)
        wrong += int(((again != fallen) | (fallen != told)).sum())
        n += len(fallen)
    figure = f"{n} saved images exceed budget or box by at most {max(0.0, excess):.1e}; {wrong} outcomes differ"
    held = excess <= ROUNDING and wrong == 0
    return judged(
        "budgets", "budgets and outcomes hold for the images as saved", held, figure, excess=excess, wrong=wrong
    )


def budgets_hold_after_rounding(run: WhiteBox, folder: Path) -> Check:
    """The same images as 8-bit files: how far they are then, and what accuracy that leaves."""
    parts, values, held = [], {}, True
    files = bool((((255 * run.images).round() / 255 - run.images).abs() <= ROUNDING).all())
    for budget, ball in run.settings.balls().items():
        images, fallen = _saved(run, folder, budget)
        rounded = (255 * images).round() / 255
        excess = float((ball.measure(run.images, rounded) - ball.size).max())
        whole = files and isinstance(ball, Linf) and abs(255 * ball.radius - round(255 * ball.radius)) < ROUNDING
        held &= excess <= ROUNDING or not whole  # a ball of whole levels around an 8-bit image keeps what is rounded
        left = 1 - float(run.judged("defended", rounded, run.labels).float().mean())
        before = 1 - float(fallen.float().mean())
        values[budget] = {"excess": excess, "accuracy": left, "before": before}
        parts.append(f"{budget}: {100 * left:.1f} % (as floats {100 * before:.1f}), {max(0.0, excess):.1e} over")
    title = "budgets hold after rounding to 8 bits (where they are whole levels)"
    return judged("rounded", title, held, "; ".join(parts), budgets=values)


def references_are_in_the_table(run: WhiteBox) -> Check:
    """A figure without the undefended and the adversarially trained network beside it says little."""
    title = "the undefended and an adversarially trained network of equal architecture are in the table"
    missing = [name for name in ("base", "adversarial") if getattr(run.parties, name) is None]
    if missing:
        return not_run("references", title, f"no {' and no '.join(missing)} model was given")
    shapes = [
        [tuple(p.shape) for p in model.parameters()]
        for model in (run.parties.defended.classifier, run.parties.base, run.parties.adversarial)
        if model is not None
    ]
    base, adversarial = (
        list(model.state_dict().values()) for model in (run.parties.base, run.parties.adversarial) if model
    )
    problem = None
    if any(shape != shapes[0] for shape in shapes):
        problem = "their architectures differ"
    elif all(mine.equal(theirs) for mine, theirs in zip(base, adversarial, strict=True)):
        problem = "both are the same network"
    for name, kind in (("base", "vanilla"), ("adversarial", "adversarial")):
        card = getattr(getattr(run.parties, name), "card", {})
        told = card.get("provenance", {}).get("settings", {}).get("kind", kind)  # of a file that says nothing, no word
        if told != kind:
            problem = f"the {name} model's file says that its training was of the kind {told}"
    figure = f"both are; {sum(math.prod(shape) for shape in shapes[0]):,} parameters each"
    return judged("references", title, problem is None, problem or figure)


def _left(run: WhiteBox, name: str, ball: Budget, count: int, **options: Any) -> torch.Tensor:
    """Which of the first images a PGD along the best gradient leaves standing."""
    model = run.parties.best(run.settings)
    climb = partial(pgd, budget=steepest(ball), seed=run.settings.seed, **options)
    attack = partial(persistent, model, attack=climb)
    row = Row(name, "", lambda parties, settings, budget: attack)
    return ~run.attacked(name, row, attack, count)[0]["fallen"]


def _checked(run: WhiteBox) -> int:
    return min(run.settings.check_images, len(run.images))


def _ball(run: WhiteBox, budget: str) -> Budget:
    return run.settings.balls()[budget]


def _saved(run: WhiteBox, folder: Path, budget: str) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = read_tensors(folder / file_of(budget))[0]
    return tensors["images"].to(run.images.device), tensors["fallen"].to(run.images.device)
