"""The program of a fixed layer as an ONNX model, its file, and onnxruntime as a function of images."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.arrays import Images
from quasinat.artefact import Card
from quasinat.errors import InputError, UsageError
from quasinat.files import write_bytes

CARD = "quasinat"  # the key of the card in the model's metadata
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def onnx_of(program: torch.export.ExportedProgram, output: str) -> Any:
    """The ONNX model (`onnx.ModelProto`) of a program; its input is `images`, its output has the name given.

    Raises:
        UsageError: a package of the extra `onnx` is not installed.
    """
    needs(*NEEDED)
    with _without_noise(), torch.no_grad():
        made = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=["images"], output_names=[output], external_data=False
        )
    model = made.model_proto  # type: ignore[union-attr]
    graphs = [model.graph, *(a.g for node in model.graph.node for a in node.attribute if a.HasField("g"))]
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for info in (each for graph in graphs for each in (*graph.input, *graph.output, *graph.value_info)):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "batch"
    return model


def write_onnx(path: Path, model: Any, card: Card) -> None:
    """Writes a model with its card in the metadata, whole or not at all; the model keeps the card.

    Raises:
        OutputError: the file system refuses.
    """
    del model.metadata_props[:]
    model.metadata_props.add(key=CARD, value=json.dumps(card))
    write_bytes(path, model.SerializeToString())


class OnnxRuntime:
    """An ONNX model as a function of images `B C H W`, run by onnxruntime on the CPU; `card` is the model's.

    Args:
        model: a path, or the model's bytes.
        threads: of a call; as many as onnxruntime chooses unless given.

    Raises:
        UsageError: onnxruntime is not installed.
        InputError: the file is missing, or no model that it can run.
    """

    def __init__(self, model: str | Path | bytes, *, threads: int | None = None) -> None:
        needs("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise InputError(f"{model} is missing", "make it again, or check the path")
        try:
            given = model if isinstance(model, bytes) else str(model)
            self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each reason
            raise InputError(f"onnxruntime cannot run {_named(model)} ({error})", "export it again") from None
        held = self._session.get_modelmeta().custom_metadata_map.get(CARD)
        self.card: Card = json.loads(held) if held else {}

    def __call__(self, images: Images) -> Tensor:
        """The model's output."""
        found = self._session.run(None, {"images": images.detach().cpu().contiguous().numpy()})
        return torch.from_numpy(found[0])


def needs(*packages: str) -> None:
    """Raises a `UsageError` that names the first package that is not installed, and the extra that has it."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{package} is not installed", "install it with: pip install 'quasinat[onnx]'")


def _named(model: str | Path | bytes) -> str:
    return "the model" if isinstance(model, bytes) else str(model)


@contextmanager
def _without_noise() -> Iterator[None]:
    """Without what torch.onnx and onnxscript say about each other and about packages that are not there."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"

    def other(record: logging.LogRecord) -> bool:
        return "torchvision" not in record.getMessage()

    log.addFilter(other)
    call: Callable[..., None] = warnings.filterwarnings
    try:
        with warnings.catch_warnings():
            call("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            call("ignore", category=DeprecationWarning, module="(torch|onnx|onnxscript|onnx_ir).*")
            yield
    finally:
        log.removeFilter(other)
