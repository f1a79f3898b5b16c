"""Artefacts: one safetensors file with its card (what it is, how it was made, with which versions) in the metadata.

No pickle is involved: reading one executes nothing.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.errors import InputError
from quasinat.files import parsed_json, read_tensors, write_tensors
from quasinat.parallel import leads

SCHEMA = 2
_KEY = "quasinat"
LARGEST = 1e6  # of learned numbers: filters have a norm of at most one, latents are not far from it
Card = dict[str, Any]


def versions() -> dict[str, str]:
    """The versions that an artefact names: of this package, torch and Python."""
    from importlib.metadata import version

    return {"quasinat": version("quasinat"), "torch": torch.__version__, "python": platform.python_version()}


def write_artefact(path: Path, kind: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Writes tensors and card, whole or not at all; the card gains `schema`, `kind` and `versions`.

    Of several processes of a job, all of which call it with the same, the one that leads writes.

    Args:
        kind: what it is, such as "layer" or "strata".
        card: anything that JSON holds.

    Raises:
        OutputError: the file system refuses.
    """
    whole = {"schema": SCHEMA, "kind": kind, **card, "versions": versions()}
    if leads():
        write_tensors(path, tensors, {_KEY: json.dumps(whole, allow_nan=False)})


def read_artefact(path: Path, kind: str) -> tuple[dict[str, Tensor], Card]:
    """Tensors and card of an artefact of `kind`.

    Raises:
        InputError: the file is missing, truncated, no artefact, of another kind, or of another schema; in one line.
    """
    tensors, metadata = read_tensors(path)
    card = _card(path, metadata)
    if card.get("kind") != kind:
        raise InputError(f"{path} is a file of kind {card.get('kind')!r}, not {kind!r}", f"pass one of kind {kind!r}")
    return tensors, card


def read_card(path: Path) -> Card:
    """The card of an artefact of any kind; errors as in `read_artefact`."""
    return _card(path, read_tensors(path)[1])


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card(path: Path, metadata: Mapping[str, str]) -> Card:
    try:
        card = parsed_json(metadata[_KEY])
        schema = card["schema"]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} is no artefact of quasinat", "pass a file that `quasinat learn` made") from None
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema}, this version reads {SCHEMA}", "learn it again")
    return dict(card)


def check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises an `InputError` that names the first tensor that is missing, unexpected or of another shape."""
    for name, shape in expected.items():
        if name not in tensors:
            raise InputError(f"{path} lacks the tensor {name}", "learn it again")
        if tuple(tensors[name].shape) != shape:
            found = tuple(tensors[name].shape)
            raise InputError(f"{path} holds {name} of shape {found}, its card says {shape}", "learn it again")
    for name in tensors:
        if name not in expected:
            raise InputError(f"{path} holds an unknown tensor {name}", "learn it again")


def check_state(path: Path, tensors: Mapping[str, Tensor], blank: Mapping[str, Tensor]) -> None:
    """Raises an `InputError` of the first tensor that is not of the shape and the type that it has in `blank`."""
    check_tensors(path, tensors, {name: tuple(value.shape) for name, value in blank.items()})
    for name, value in blank.items():
        if tensors[name].dtype != value.dtype:
            raise InputError(f"{path} holds {name} as {tensors[name].dtype}, not {value.dtype}", "learn it again")


def check_numbers(path: Path, name: str, tensor: Tensor) -> None:
    """Raises an `InputError` where a tensor to compute with is not of float32 or float64, or not finite and usable."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{path} holds {name} as {tensor.dtype}", "learn it again")
    if not bool((tensor.abs() <= LARGEST).all()):  # NaN lands here as well
        raise InputError(f"{path} holds {name} that are not finite, or beyond {LARGEST:g}", "learn it again")
