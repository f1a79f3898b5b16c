"""How an attack sees a model: logits and input gradients, with the model left as it was found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Logits, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.checks import check_gradient, check_images, check_labels, check_logits
from quasinat.attacks.goal import Goal
from quasinat.errors import InputError

OnStep = Callable[[int, int], None]  # progress of an iterated attack: steps done, steps in all


@contextmanager
def attacking(
    model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None = None
) -> Iterator[tuple[Tensor, Goal]]:
    """Holds the model in evaluation mode and yields checked copies of images and goal, cut off from any graph.

    Every submodule gets its own training flag back afterwards, also after an error. Gradients are enabled inside,
    whatever the caller's mode.

    Raises:
        InputError: images that are not `B C H W` in [0, 1], or labels or targets that are not one int64 per image.
    """
    check_images(images)
    check_labels(labels, len(images))
    if targets is not None:
        check_labels(targets, len(images), "target")
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        wanted = None if targets is None else targets.detach().clone()
        yield images.detach().clone(), Goal(labels.detach().clone(), wanted)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Holds a model in evaluation mode; every submodule gets its own training flag back, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def logits_of(model: nn.Module, images: Images, goal: Goal, rows: PerImageInt | None = None) -> Logits:
    """The model's logits, checked; differentiable where `images` is watched.

    `rows` are the numbers of these images in the caller's batch, for error messages.

    Raises:
        InputError: logits of the wrong shape, not finite, or without a class for a label or target.
    """
    logits = model(images)
    check_logits(logits, goal.labels, rows)
    if goal.targets is not None:
        check_logits(logits, goal.targets, rows, "target")
    return logits


def watched(images: Images) -> Images:
    """The same values as a fresh leaf, for `input_gradient`."""
    return images.detach().requires_grad_(True)


def input_gradient(
    values: PerImage, images: Images, rows: PerImageInt | None = None, *, keep_graph: bool = False
) -> Images:
    """The gradient of each image's value with respect to that image; no parameter receives a gradient.

    Summing first is exact as long as the model treats its images one by one.

    Raises:
        InputError: the values do not depend on the images differentiably, or a gradient is not finite.
    """
    gradient = None
    if values.requires_grad:
        (gradient,) = torch.autograd.grad(values.sum(), images, retain_graph=keep_graph, allow_unused=True)
    if gradient is None:
        raise InputError(
            "the model has no gradient at its images", "attack a differentiable model, or use square or random-noise"
        )
    check_gradient(gradient, rows)
    return gradient.detach()


def loss_and_gradient(
    model: nn.Module, images: Images, goal: Goal, loss: str = "cross-entropy", rows: PerImageInt | None = None
) -> tuple[PerImage, PerImageBool, Images]:
    """The loss of each image (see `LOSSES`), whether the goal is reached there, and the loss's gradient."""
    leaf = watched(images)
    logits = logits_of(model, leaf, goal, rows)
    losses = goal.loss(loss, logits)
    return losses.detach(), goal.reached(logits), input_gradient(losses, leaf, rows)


def part_of(on_step: OnStep | None, part: int, parts: int) -> OnStep | None:
    """Progress of one of several equal parts, reported as progress of the whole."""
    if on_step is None:
        return None

    def report(done: int, steps: int) -> None:
        on_step(part * steps + done, parts * steps)

    return report
