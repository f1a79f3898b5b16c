"""Trains a classifier on perturbed images (Madry et al. 2018, section 2.1)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from quasinat.arrays import Images, Labels
from quasinat.errors import InputError, UsageError
from quasinat.training.classifier import Network, fit_classifier

Perturb = Callable[..., Images]
"""`(network, images, labels, *, seed: int) -> images`: what an attack makes of a batch."""
SEEDS = 2**31


def train_adversarially(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    perturb: Perturb,
    share: float = 1.0,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    weight_decay: float = 5e-4,
    label_smoothing: float = 0.0,
    augment: bool = True,
    noise: float = 0.0,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> Network:
    """Trains `network` in place on the images that `perturb` makes, and returns it in eval mode.

    It descends the outer minimum of min E max L(x + delta, y) at the deltas that the inner maximisation found (Madry
    et al. 2018, section 2.1, Eq. 2.1). Under a `share` below 1 the rest of each batch stays as it is; clean and
    perturbed images weigh the same, unlike in Kurakin et al. 2017 (section 3), where the latter weigh 0.3.

    With `share` 0 this is `train_classifier`, to the bit.

    Args:
        epochs, batch_size, learning_rate, weight_decay, label_smoothing: as of `train_classifier`.
        network: images to logits; a `Normalise` inside it takes its mean and deviation from `images`.
        images: `B C H W` in [0, 1].
        labels: `B`, from 0.
        perturb: called as `perturb(network, images, labels, seed=...)` on augmented images, with the network in eval
            mode; returns images of the same shape. The seed, below 2^31, differs from batch to batch and is a function
            of `seed`, the epoch and the batch. Gradients that it leaves on the parameters are dropped.
        share: the part of each batch that is perturbed, in [0, 1], rounded to whole images: 1 in Madry et al., 1/2 in
            Kurakin et al.
        augment: mirror and shift the images before they are perturbed.
        noise: deviation of Gaussian noise that is added after they are perturbed; they are then clipped to [0, 1].
        seed: of the batches, the augmentation, the perturbations and the noise.
        on_epoch: called with the epoch, from 1, and its mean loss.
        checkpoint: a file that keeps the state after every epoch; started again, the training continues from it.
        fingerprint: what decides the perturbation, such as its budget, as JSON holds it: the checkpoint of a training
            with another one is refused.

    Raises:
        UsageError: a `share` outside [0, 1].
        InputError: `perturb` returns images of another shape.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"a share of {share} of each batch cannot be perturbed", "give a number from 0 to 1")

    def change(batch: Images, truth: Labels, generator: torch.Generator) -> Images:
        count = round(share * len(batch))
        if not count:
            return batch
        drawn = int(torch.randint(SEEDS, (), generator=generator))
        network.eval()
        try:
            made = perturb(network, batch[:count], truth[:count], seed=drawn).detach()
        finally:
            network.train()
        network.zero_grad(set_to_none=True)
        if made.shape != batch[:count].shape:
            shapes = f"{tuple(made.shape)} for {tuple(batch[:count].shape)}"
            raise InputError(f"the perturbation returns images of shape {shapes}", "it must keep their shape")
        return torch.cat([made, batch[count:]])

    return fit_classifier(
        network,
        images,
        labels,
        {"training": "adversarial", "share": share, "perturbation": dict(fingerprint or {})},
        change=change,
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
