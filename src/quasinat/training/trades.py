"""TRADES: accuracy on clean images, and answers that stay the same around them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Labels, Logits
from quasinat.errors import UsageError
from quasinat.training.classifier import Network, fit_classifier

START = 1e-3  # the deviation of where the inner maximisation starts, as in the source's code


def disagreement(logits: Logits, others: Logits) -> Tensor:
    """KL(softmax(logits) || softmax(others)) of each image, `B`."""
    return F.kl_div(others.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="none").sum(1)


def train_trades(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    radius: float = 8 / 255,
    beta: float = 6.0,
    steps: int = 10,
    step_size: float | None = None,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    weight_decay: float = 5e-4,
    augment: bool = True,
    noise: float = 0.0,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> Network:
    """Trains `network` in place on CE(f(x), y) + beta max KL(f(x) || f(x')) and returns it in eval mode.

    (Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy", Eq. 5 and Algorithm 1.)
    x' is in the ball around x and found by signed steps up the divergence from x + 0.001 N(0, 1), with the network in
    eval mode; both terms are then taken in training mode.

    What differs from the source, and why: AdamW under a one-cycle schedule as for the other classifiers.

    Args:
        epochs, batch_size, learning_rate, weight_decay: as of `train_classifier`.
        network: images to logits; a `Normalise` inside it takes its mean and deviation from `images`.
        images: `B C H W` in [0, 1].
        labels: `B`, from 0.
        radius: of the L-infinity ball, 8/255 (0.031) in the source.
        beta: 1 / lambda, 6 in the source's tables.
        steps: 10 in the source.
        step_size: of them; the source has 0.007 for 0.031 and 10 steps, which is the default: 0.225 radii.
        augment, noise, seed, on_epoch, checkpoint: as of `train_classifier`.

    Raises:
        UsageError: a negative number, or no steps.
    """
    for name, value in (("radius", radius), ("beta", beta), ("steps", steps)):
        if not 0 <= value < float("inf"):
            raise UsageError(f"{name} is {value}", "give a finite number, 0 or more")
    stride = 0.225 * radius if step_size is None else step_size

    def objective(module: nn.Module, batch: Images, truth: Labels, generator: torch.Generator) -> Tensor:
        others = around(module, batch, radius=radius, steps=steps, step_size=stride, generator=generator)
        logits = module(batch)
        return F.cross_entropy(logits, truth) + beta * disagreement(logits, module(others)).mean()

    own = {"radius": radius, "beta": beta, "steps": steps, "step_size": stride}
    return fit_classifier(
        network,
        images,
        labels,
        {"training": "trades", **own},
        objective=objective,
        label_smoothing=0.0,
        augment=augment,
        noise=noise,
        checkpoint=checkpoint,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        on_epoch=on_epoch,
    )


def around(
    network: nn.Module, images: Images, *, radius: float, steps: int, step_size: float, generator: torch.Generator
) -> Images:
    """Images of the ball where the network disagrees with itself most, as signed ascent finds them.

    The network is in eval mode meanwhile and its parameters receive no gradient.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            at_image = network(images)
        found = images + START * torch.randn(images.shape, generator=generator).to(images)
        found = found.clamp(images - radius, images + radius).clamp(0, 1)
        for _ in range(steps):
            found = found.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(disagreement(at_image, network(found)).sum(), found)
            found = found.detach() + step_size * gradient.sign()
            found = found.clamp(images - radius, images + radius).clamp(0, 1)
        return found.detach()
    finally:
        network.train(training)
