"""Defensive distillation: a network trained at a high temperature on the probabilities of another one."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Labels
from quasinat.errors import UsageError
from quasinat.training.checkpoint import digest
from quasinat.training.classifier import Network, fit_classifier

TEMPERATURE = 100.0


def train_distilled(
    network: Network,
    images: Images,
    labels: Labels,
    *,
    teacher: nn.Module | None = None,
    temperature: float = TEMPERATURE,
    epochs: int = 20,
    batch_size: int = 64,
    learning_rate: float = 4e-3,
    weight_decay: float = 5e-4,
    augment: bool = True,
    noise: float = 0.0,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> Network:
    """Trains `network` in place at a temperature and returns it in eval mode; used at temperature 1 it is the defence.

    (Papernot et al. 2016, "Distillation as a Defense to Adversarial Perturbations against Deep Neural Networks",
    section IV.) Two trainings: first the teacher, without a `teacher` here, on the hard labels with softmax(z / T);
    then another network of the same architecture, with the teacher here, on -sum_k p_k log softmax(z / T)_k,
    p = softmax(z_teacher / T). The loss is not scaled by T.

    What differs from the source, and why: where the images are augmented, the teacher looks at the image as it was
    drawn and not at the one in the set, so that label and image belong together; AdamW as for the other classifiers.

    Args:
        epochs, batch_size, learning_rate, weight_decay: as of `train_classifier`.
        network: images to logits; a `Normalise` inside it takes its mean and deviation from `images`.
        images: `B C H W` in [0, 1].
        labels: `B`, from 0; the teacher's training alone uses them.
        teacher: a network that was trained at this temperature, in eval mode; None trains it.
        temperature: T; the source's tables have 1 to 100, and 100 for the largest effect.
        augment, noise, seed, on_epoch, checkpoint: as of `train_classifier`.

    Raises:
        UsageError: a temperature that is not above zero.
    """
    if not 0 < temperature < float("inf"):
        raise UsageError(f"a temperature of {temperature} makes no sense", "give one above 0, such as 100")

    def objective(student: nn.Module, batch: Images, truth: Labels, generator: torch.Generator) -> Tensor:
        cooled = student(batch) / temperature
        if teacher is None:
            return F.cross_entropy(cooled, truth)
        with torch.no_grad():
            wanted = (teacher(batch) / temperature).softmax(1)
        return F.cross_entropy(cooled, wanted)

    named = None if teacher is None else digest(*(value.reshape(-1) for value in teacher.state_dict().values()))
    return fit_classifier(
        network,
        images,
        labels,
        {"training": "distillation", "temperature": temperature, "teacher": named},
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
