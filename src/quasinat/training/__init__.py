"""Training: one loop, its checkpoints, and the classifier's uses of it."""

from quasinat.training.adversarial import train_adversarially
from quasinat.training.checkpoint import Checkpoint
from quasinat.training.classifier import train_classifier
from quasinat.training.loop import minimise

__all__ = ["Checkpoint", "minimise", "train_adversarially", "train_classifier"]
