"""Trains a network whose units saturate (Nayebi & Ganguli 2017).

("Biologically inspired protection of deep networks from adversarial attacks", arXiv:1703.09202.)
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Labels
from quasinat.errors import UsageError
from quasinat.networks.saturating import SaturatedLinear, saturation_penalty
from quasinat.training.classifier import Network, fit_classifier


def train_saturating(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    penalty: float = 3.0,
    rise: float = 0.5,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 4e-3,
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.0,
    augment: bool = True,
    noise: float = 0.0,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> Network:
    """Trains `network` in place with cross-entropy plus a penalty on unsaturated units; returns it in eval mode.

    The penalty of a batch is `saturation_penalty`: over the saturating layers, the sum of the mean distance of a unit's
    input from the nearest point where the activation's derivative is zero (Nayebi & Ganguli 2017, after Goroshin &
    LeCun 2013). Its weight rises from 0 in the first epoch, in equal steps, to `penalty`, so that the network learns
    the task before its units are driven apart.

    What differs from the source, and why: the activation and the mean in place of a sum, see `SaturatedLinear` and
    `saturation_penalty`; the weight and its schedule are ours, as there is no public code.

    With `penalty` 0 this is `train_classifier`, to the bit.

    Args:
        network: images to logits, with `SaturatedLinear` units, as `vgg(..., activation="saturating")` has them; a
            `Normalise` inside it takes its mean and deviation from `images`.
        images: `B C H W` in [0, 1].
        labels: `B`, from 0.
        penalty: the weight, at least 0, beside the cross-entropy in nats.
        rise: the share of the epochs, from 0 to 1, over which the weight rises.
        epochs, batch_size, learning_rate, weight_decay, label_smoothing, augment, noise, seed, on_epoch, checkpoint:
            as of `train_classifier`; the loss that `on_epoch` hears has the penalty in it.

    Raises:
        UsageError: a network without saturating units, a negative or infinite penalty, or a `rise` outside [0, 1].
    """
    if not any(isinstance(module, SaturatedLinear) for module in network.modules()):
        problem = f"the {type(network).__name__} has no saturating units"
        raise UsageError(problem, "build it with activation='saturating'")
    if not 0 <= penalty < math.inf:
        raise UsageError(f"penalty is {penalty}", "give a finite number of at least 0")
    if not 0 <= rise <= 1:
        raise UsageError(f"the penalty cannot rise over a share of {rise} of the epochs", "give a number from 0 to 1")
    done = 0

    def objective(module: nn.Module, batch: Images, truth: Labels, generator: torch.Generator) -> Tensor:
        logits, unsaturation = saturation_penalty(module, batch)
        weight = penalty * risen(done, rise * epochs)
        return F.cross_entropy(logits, truth, label_smoothing=label_smoothing) + weight * unsaturation

    def count(epoch: int, loss: float) -> None:  # called of the epochs in a checkpoint too
        nonlocal done
        done = epoch
        if on_epoch:
            on_epoch(epoch, loss)

    return fit_classifier(
        network,
        images,
        labels,
        {"training": "saturating", "penalty": penalty, "rise": rise},
        objective=objective,
        label_smoothing=label_smoothing,
        augment=augment,
        noise=noise,
        checkpoint=checkpoint,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        on_epoch=count,
    )


def risen(done: int, over: float) -> float:
    """The share of its full weight that the penalty has in the epoch after `done` epochs, if it rises over `over`."""
    return min(1.0, done / over) if over else 1.0
