"""Training: one loop, its checkpoints, and the classifier's uses of it."""

from quasinat.training.adversarial import train_adversarially
from quasinat.training.checkpoint import Checkpoint
from quasinat.training.classifier import train_classifier
from quasinat.training.distillation import train_distilled
from quasinat.training.loop import minimise
from quasinat.training.saturating import train_saturating
from quasinat.training.trades import train_trades

__all__ = [
    "Checkpoint",
    "minimise",
    "train_adversarially",
    "train_classifier",
    "train_distilled",
    "train_saturating",
    "train_trades",
]
