"""Measuring: accuracy with its interval, image quality, and the provenance of a result."""

from quasinat.evaluation.accuracy import Accuracy, accuracy, accuracy_of, outcomes, wilson_interval
from quasinat.evaluation.image_quality import dissimilarity, largest_difference, psnr
from quasinat.evaluation.record import code_fingerprint, peak_memory, provenance

__all__ = [
    "Accuracy",
    "accuracy",
    "accuracy_of",
    "code_fingerprint",
    "dissimilarity",
    "largest_difference",
    "outcomes",
    "peak_memory",
    "provenance",
    "psnr",
    "wilson_interval",
]
