"""The system in other people's tools: ART, RobustBench's fields, torchvision-style pipelines.

Foolbox, torchattacks and AutoAttack take a `Defended` module as it is. `quasinat.interop.art` needs ART and is imported
on its own.
"""

from quasinat.interop.chunked import Chunked
from quasinat.interop.own_model import OwnModel, classifier_named, own_model
from quasinat.interop.projection import Projection
from quasinat.interop.robustbench import benchmark

__all__ = ["Chunked", "OwnModel", "Projection", "benchmark", "classifier_named", "own_model"]
