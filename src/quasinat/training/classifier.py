"""Trains a classifier on images, clean or transformed (the paper, section 3.5)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Labels
from quasinat.networks.normalise import Normalise
from quasinat.parallel import mine
from quasinat.training.augment import mirror_and_shift
from quasinat.training.checkpoint import Checkpoint, digest
from quasinat.training.loop import minimise

Network = TypeVar("Network", bound=nn.Module)
Objective = Callable[[nn.Module, Images, Labels, torch.Generator], Tensor]
Change = Callable[[Images, Labels, torch.Generator], Images]


def train_classifier(
    network: Network,
    images: Images,
    labels: Labels,
    *,
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
    """Trains `network` in place with cross-entropy and returns it in eval mode.

    Args:
        epochs: passes over the images.
        batch_size: images in a batch.
        learning_rate: the peak of one cycle.
        weight_decay: of AdamW.
        label_smoothing: in [0, 1), the share of a label's weight that all classes get alike.
        network: images to logits; a `Normalise` inside it takes its mean and deviation from `images`.
        images: `B C H W` in [0, 1].
        labels: `B`, from 0.
        augment: mirror and shift the images as they are drawn.
        noise: deviation of Gaussian noise that is added to them after that; they are then clipped to [0, 1], as those
            that the smoothed classifier sees (Cohen et al. 2019, section 3.3).
        seed: of the batches, the augmentation and the noise.
        on_epoch: called with the epoch, from 1, and its mean loss.
        checkpoint: a file that keeps the state after every epoch; started again, the training continues from it.
    """
    return fit_classifier(
        network,
        images,
        labels,
        {"training": "classifier"},
        label_smoothing=label_smoothing,
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


def fit_classifier(
    network: Network,
    images: Images,
    labels: Labels,
    identity: Mapping[str, Any],
    *,
    change: Change | None = None,
    objective: Objective | None = None,
    label_smoothing: float,
    augment: bool,
    noise: float,
    checkpoint: Path | None,
    **loop: Any,
) -> Network:
    """What every training of a classifier shares: normalisation, augmentation, noise, cross-entropy, checkpoint.

    Args:
        identity: what tells this training from others in its checkpoint, besides the options here.
        change: of a batch and its labels, after the augmentation and before the noise; draws from the generator.
        objective: the mean loss of a batch as the network sees it, in place of the cross-entropy, which takes no part
            then, nor does its smoothing; draws from the generator.
        loop: the options of `minimise`.
    """
    for module in network.modules():
        if isinstance(module, Normalise) and len(images):
            module.fit(images)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        own = mine(indices)
        batch, truth = images[own], labels[own]
        if augment:
            batch = mirror_and_shift(batch, generator, batch=len(indices))
        if change:
            batch = change(batch, truth, generator)
        if noise:
            drawn = mine(torch.randn(len(indices), *batch.shape[1:], generator=generator))
            batch = (batch + noise * drawn.to(batch)).clamp(0, 1)
        if objective:
            return objective(network, batch, truth, generator)
        return F.cross_entropy(network(batch), truth, label_smoothing=label_smoothing)

    kept = None
    if checkpoint:
        built = getattr(network, "options", {})  # networks of one shape may differ, in their activation for one
        own = {**identity, **built, "training": f"{identity['training']} {type(network).__name__}"}
        options = {"label_smoothing": label_smoothing, "augment": augment, "noise": noise}
        kept = Checkpoint(checkpoint, {**own, **options, "data": digest(images, labels)})
    minimise(network, loss, count=len(images), checkpoint=kept, **loop)
    return network
