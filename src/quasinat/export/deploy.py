"""A layer, or a classifier behind it, into one file that runs without this package, with what was measured of it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.artefact import Card, versions
from quasinat.defended import Defended
from quasinat.errors import QuasinatError, UsageError
from quasinat.export.agreement import Agreement, agreement
from quasinat.export.fixed_admm import PENALTY, RELAXATION
from quasinat.export.fixed_layer import STEPS, fixed
from quasinat.export.measured_on import random_images
from quasinat.export.onnx_file import NEEDED, OnnxRuntime, needs, onnx_of, write_onnx
from quasinat.export.program import load_program, program_of, write_program
from quasinat.layer import SparseTransformationLayer
from quasinat.training.checkpoint import digest

FORMATS = (".onnx", ".pt2")
IMAGES = 8  # that a file is measured on where none are given


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its card, and how far what the file gives is from what it was made of.

    Both are measured of the file as it was read back. `with_layer` holds it against the layer as it is, so that the
    error of the steps is in it; `with_module` against the fixed module that was exported, which leaves what the format
    and its runtime add.

    Attributes:
        path: the file.
        card: what it says of itself: the layer's fingerprint, steps, size, versions and these errors.
        with_layer, with_module: the two comparisons.
    """

    path: Path
    card: Card
    with_layer: Agreement
    with_module: Agreement


def export(
    layer: SparseTransformationLayer,
    path: str | Path,
    *,
    classifier: nn.Module | None = None,
    steps: int = STEPS,
    image_size: int | tuple[int, int] = 32,
    images: Images | None = None,
) -> Exported:
    """Writes the layer with a fixed number of steps, or `classifier` behind it, for any number of images of one size.

    The file is written beside its place first, read back and measured; what was found goes into its card, and only a
    file that runs gets its name.

    Args:
        layer: any but one that refines.
        path: `.onnx` for ONNX (the extra `onnx`), or `.pt2` for `torch.export`.
        classifier: images to logits; the file then gives logits, else T(x).
        steps, image_size: see `fixed`.
        images: natural images to measure the file on; random ones with a natural spectrum unless given.

    Raises:
        UsageError: an unknown ending, a package that is missing, a layer that cannot be fixed, or a classifier that
            torch cannot export.
        OutputError: the file system refuses.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UsageError(f"{path} is of no known format", "end it in .onnx or .pt2")
    if path.suffix == ".onnx":
        needs(*NEEDED)
    plain = fixed(layer, steps, image_size=image_size)
    module: nn.Module = plain if classifier is None else Defended(plain, classifier.eval())
    whole: nn.Module = layer if classifier is None else Defended(layer, classifier)
    given = "given" if images is not None else "random, with a natural spectrum"
    if images is None:
        images = random_images(plain.channels, plain.height, plain.width, IMAGES)
    gives = "transformed" if classifier is None else "logits"
    try:
        program = program_of(module, images)
        model = onnx_of(program, gives) if path.suffix == ".onnx" else None
    except Exception as error:  # whatever torch has against what somebody's classifier does
        if classifier is None or isinstance(error, QuasinatError):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        remedy = "export the layer alone, and run the classifier behind it"
        raise UsageError(f"the classifier cannot be exported as {path.suffix} ({reason})", remedy) from error

    def write(place: Path, card: Card) -> None:
        if model is None:
            write_program(place, program, card)
        else:
            write_onnx(place, model, card)

    with _draft(path) as draft:
        write(draft, {})
        run: Callable[[Images], Tensor] = load_program(draft)[0] if model is None else OnnxRuntime(draft)
        with_layer, with_module = agreement(run, whole, images), agreement(run, module, images)
    card: dict[str, Any] = {
        "kind": "exported",
        "gives": gives,
        "layer": fingerprint(layer),
        "classifier": None if classifier is None else _weights(classifier),
        "steps": steps,
        "image": [plain.channels, plain.height, plain.width],
        "solver": {"name": "admm", "penalty over lambda": PENALTY, "relaxation": RELAXATION},
        "measured on": given,
        "against the layer": with_layer.as_json(),
        "against the module": with_module.as_json(),
        "versions": {**versions(), **(_onnx_versions() if model is not None else {})},
    }
    write(path, card)
    return Exported(path, card, with_layer, with_module)


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name beside a file's own, of the same ending, that is gone afterwards."""
    draft = path.with_name(f".{path.stem}.{os.getpid()}-draft{path.suffix}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def fingerprint(layer: SparseTransformationLayer) -> str:
    """The SHA-256 of the layer's settings and tensors: files of the same layer have the same."""
    total = hashlib.sha256(json.dumps(layer.settings(), sort_keys=True).encode())
    total.update(_weights(layer).encode())
    return total.hexdigest()


def _weights(module: nn.Module) -> str:
    return digest(*(torch.atleast_1d(value) for value in module.state_dict().values()))


def _onnx_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in NEEDED}
