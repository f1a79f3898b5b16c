"""Training: one loop, and the classifier's use of it."""

from quasinat.training.classifier import train_classifier
from quasinat.training.loop import minimise

__all__ = ["minimise", "train_classifier"]
