"""The layer and the defended classifier outside of this package: at a fixed cost, as ONNX, `torch.export`, compiled."""

from quasinat.export.agreement import Agreement, agreement
from quasinat.export.deploy import Exported, export, fingerprint
from quasinat.export.fixed_layer import FixedLayer, FixedState, fixed
from quasinat.export.onnx_file import OnnxRuntime
from quasinat.export.program import load_program, program_of

__all__ = [
    "Agreement",
    "Exported",
    "FixedLayer",
    "FixedState",
    "OnnxRuntime",
    "agreement",
    "export",
    "fingerprint",
    "fixed",
    "load_program",
    "program_of",
]
