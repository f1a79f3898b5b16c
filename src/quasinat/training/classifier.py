"""Trains a classifier on images, clean or transformed (the paper, section 3.5)."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Labels
from quasinat.networks.normalise import Normalise
from quasinat.training.augment import mirror_and_shift
from quasinat.training.checkpoint import Checkpoint, digest
from quasinat.training.loop import minimise

Network = TypeVar("Network", bound=nn.Module)


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
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> Network:
    """Trains `network` in place with cross-entropy and returns it in eval mode.

    Args:
        network: images to logits; a `Normalise` inside it takes its mean and deviation from `images`.
        images: `B C H W` in [0, 1].
        labels: `B`, from 0.
        augment: mirror and shift the images as they are drawn.
        seed: of the batches and the augmentation.
        on_epoch: called with the epoch, from 1, and its mean loss.
        checkpoint: a file that keeps the state after every epoch; started again, the training continues from it.
    """
    for module in network.modules():
        if isinstance(module, Normalise) and len(images):
            module.fit(images)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        batch = mirror_and_shift(images[indices], generator) if augment else images[indices]
        return F.cross_entropy(network(batch), labels[indices], label_smoothing=label_smoothing)

    kept = None
    if checkpoint:
        own = {"label_smoothing": label_smoothing, "augment": augment, "data": digest(images, labels)}
        kept = Checkpoint(checkpoint, {"training": f"classifier {type(network).__name__}", **own})
    minimise(
        network,
        loss,
        count=len(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        on_epoch=on_epoch,
        checkpoint=kept,
    )
    return network
