"""quasinat: adversarial defence by stratified convolutional sparse coding.

    layer = quasinat.SparseTransformationLayer.load("layer.stl")
    defended = quasinat.Defended(layer, classifier)      # images B C H W in [0, 1] -> logits

The way of the data: image -> stratum -> that stratum's dictionary -> sparse code -> T(image) -> classifier.
"""

import os as _os

# Threads that wait for each other should sleep: where another process holds a core, spinning slows training down
# many times over. It counts only before torch starts, and a choice made in the environment stands.
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from quasinat import attacks, data, networks
from quasinat.attacks import L2, Dissimilarity, Linf
from quasinat.batches import project
from quasinat.defended import Defended
from quasinat.errors import InputError, OutputError, QuasinatError, UsageError
from quasinat.evaluation import Accuracy, accuracy, psnr
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import (
    ADMM,
    CoordinateDescent,
    Dictionary,
    Identity,
    Implicit,
    SparseCodingProblem,
    Unrolled,
    learn_dictionary,
    solve,
)
from quasinat.strata import Strata, fit_strata, learn_dictionaries
from quasinat.training import train_classifier

__version__ = "0.1.0"

__all__ = [
    "ADMM",
    "L2",
    "Accuracy",
    "CoordinateDescent",
    "Defended",
    "Dictionary",
    "Dissimilarity",
    "Identity",
    "Implicit",
    "InputError",
    "Linf",
    "OutputError",
    "QuasinatError",
    "SparseCodingProblem",
    "SparseTransformationLayer",
    "Strata",
    "Unrolled",
    "UsageError",
    "accuracy",
    "attacks",
    "data",
    "fit_strata",
    "learn_dictionaries",
    "learn_dictionary",
    "networks",
    "project",
    "psnr",
    "solve",
    "train_classifier",
]
