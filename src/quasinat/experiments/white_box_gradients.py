"""The checks of a white-box evaluation that ask whether its gradients are what they claim to be."""

import torch

from quasinat.evaluation.check import Check, judged, not_run
from quasinat.evaluation.gradient_checks import gradient_agreement, gradient_norms, repeat_difference
from quasinat.experiments.white_box import SAME, WhiteBox
from quasinat.experiments.white_box_rows import LOSSES, ROWS
from quasinat.experiments.workspace import Step
from quasinat.sparse_coding import Implicit

DIFFERENCES, COSINE = 1e-3, 0.95  # of gradients that agree: relative error, and cosine
TRUSTED = 0.01  # share of image gradients that may fall back to unrolled ones


def gradients_agree(run: WhiteBox) -> Check:
    """Finite differences = autograd through the iterations = implicit, on the layer as deployed."""
    title = "finite differences = unrolled = implicit gradient on the deployed layer"
    if not run.parties.has_layer:
        return not_run("gradient", title, "the transformation has no gradient of its own but the identity")
    count = min(run.settings.gradient_images, len(run.images))

    def compute() -> Step:
        model = run.parties.defended.with_adjoint(Implicit(), clipping="exact")
        found = gradient_agreement(model, run.images[:count], run.labels[:count], seed=run.settings.seed)
        return {"differences": found.differences, "unrolled": found.unrolled, "deployed": found.deployed}, {}

    found = run.workspace.step("check-gradient", compute)[0]
    error, unrolled, deployed = (
        float(values.max() if name == "differences" else values.min())
        for name, values in ((name, found[name]) for name in ("differences", "unrolled", "deployed"))
    )
    figure = (
        f"{count} images: finite differences within {error:.1e} of the implicit gradient, unrolled at cosine "
        f"{unrolled:.4f} or more, as deployed at {deployed:.4f} or more"
    )
    held = error <= DIFFERENCES and unrolled >= COSINE and deployed >= COSINE
    return judged("gradient", title, held, figure, differences=error, unrolled=unrolled, deployed=deployed)


def gradients_are_trusted(run: WhiteBox) -> Check:
    """How often the codes were not optimal enough for the implicit derivative."""
    title = "the implicit gradient's optimality conditions hold"
    keys = [key for key in run.rows() if ROWS[key].gradient.startswith("implicit")]
    if not keys:
        return not_run("trusted", title, "no row follows the implicit gradient")
    fell, asked = 0, 0
    for key in keys:
        for budget in run.settings.budgets:
            tensors, values = run.cell(key, budget)
            fell += values["fallbacks"]
            asked += int(tensors["queries"].sum()) // 2  # a gradient is a forward and a backward query
    share = fell / max(1, asked)
    figure = f"{fell:,} of about {asked:,} image gradients fell back to unrolled ones"
    return judged("trusted", title, share <= TRUSTED, figure, fell=fell, asked=asked)


def gradients_do_not_vanish(run: WhiteBox) -> Check:
    """An attack that stands on a plateau of the loss finds nothing."""
    count = min(run.settings.check_images, len(run.images))

    def compute() -> Step:
        model = run.parties.best(run.settings)
        return {"norms": gradient_norms(model, run.images[:count], run.labels[:count], loss="margin")}, {}

    norms = run.workspace.step("check-norms", compute)[0]["norms"]
    zero, median = int((norms == 0).sum()), float(norms.median())
    figure = f"{zero} of {count} images have a gradient of zero; the median norm is {median:.3g}"
    title = "input gradients are not zero"
    return judged("non-zero", title, zero <= 0.01 * count, figure, zero=zero, median=median, n=count)


def is_deterministic(run: WhiteBox) -> Check:
    """One image, one answer; or else expectation over the randomness and several submissions."""
    title = "deterministic, or attacked in expectation and submitted several times"
    with torch.no_grad():
        difference = repeat_difference(run.parties.defended, run.images[:8])
    settings = run.settings
    if difference <= SAME:
        figure = f"deterministic: logits repeat within {difference:.1e} of their spread, alone and in a batch"
        return judged("determinism", title, True, figure, difference=difference)
    figure = f"randomised: gradients are means of {settings.samples}, outcomes the worst of {settings.submissions}"
    enough = settings.samples >= 10 and settings.submissions >= 10
    return judged("determinism", title, enough, figure, difference=difference)


def three_losses(run: WhiteBox) -> Check:
    """A loss that saturates must not be the only one."""
    keys = [key for key in run.rows() if key in LOSSES]
    budget, names = run.settings.linf()[0], sorted({LOSSES[key] for key in keys})
    values = {LOSSES[key]: 1 - float(run.fallen([key], budget).float().mean()) for key in keys}
    figure = f"{budget}: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in values.items())
    return judged("losses", "at least three losses", len(names) >= 3, figure, accuracy=values)
