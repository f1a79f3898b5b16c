"""Measuring: accuracy with its interval, image quality, and the provenance of a result."""

from quasinat.evaluation.accuracy import Accuracy, accuracy, accuracy_of, outcomes, wilson_interval
from quasinat.evaluation.binarisation import Binarisation, binarisation
from quasinat.evaluation.calibration import Calibration, calibration
from quasinat.evaluation.corruptions import CORRUPTIONS, corrupted
from quasinat.evaluation.image_quality import dissimilarity, largest_difference, psnr
from quasinat.evaluation.paired import Difference, paired_difference
from quasinat.evaluation.record import code_fingerprint, peak_memory, provenance
from quasinat.evaluation.smoothing import (
    Certificates,
    average_radius,
    certificate,
    certified_accuracy,
    certify,
    largest_radius,
    lower_bound,
    noise_counts,
    predict,
)

__all__ = [
    "CORRUPTIONS",
    "Accuracy",
    "Binarisation",
    "Calibration",
    "Certificates",
    "Difference",
    "accuracy",
    "accuracy_of",
    "average_radius",
    "binarisation",
    "calibration",
    "certificate",
    "certified_accuracy",
    "certify",
    "code_fingerprint",
    "corrupted",
    "dissimilarity",
    "largest_difference",
    "largest_radius",
    "lower_bound",
    "noise_counts",
    "outcomes",
    "paired_difference",
    "peak_memory",
    "predict",
    "provenance",
    "psnr",
    "wilson_interval",
]
