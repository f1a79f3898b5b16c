"""Training: one loop, its checkpoints, and the classifier's use of it."""

from quasinat.training.checkpoint import Checkpoint
from quasinat.training.classifier import train_classifier
from quasinat.training.loop import minimise

__all__ = ["Checkpoint", "minimise", "train_classifier"]
