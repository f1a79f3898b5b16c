"""The defences that the paper compares with, each a function or module of its own; parameters from their papers."""

from quasinat.defences.detector import Detector
from quasinat.defences.transformation import Transformation, Views, with_seed

__all__ = ["Detector", "Transformation", "Views", "with_seed"]
