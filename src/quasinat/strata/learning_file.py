"""A learner's state as a file, so that an interrupted learning loses at most one pass."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.artefact import read_artefact, write_artefact
from quasinat.errors import InputError, UsageError
from quasinat.parallel import gathered
from quasinat.sparse_coding.dictionary_problem import LearningState

KIND = "learning state"
_REAL = (torch.float32, torch.float64)
_ANY = (*_REAL, torch.complex64, torch.complex128, torch.int64)
_TYPES = {"filters": _REAL, "indices": (torch.int64,), "values": _ANY, "dense": _ANY}


def save_state(state: LearningState, path: Path, settings: dict[str, Any]) -> None:
    """Writes the state, whole or not at all; `settings` says what it belongs to.

    What each of several processes remembers goes into the one file, from which any number of them can go on.
    """
    tensors: dict[str, Tensor] = {"filters": state.filters}
    sparse = {}
    for name, tensor in gathered(state.memory).items():
        if tensor.is_sparse:
            sparse[name] = list(tensor.shape)
            tensors[f"indices/{name}"], tensors[f"values/{name}"] = tensor.indices(), tensor.values()
        else:
            tensors[f"dense/{name}"] = tensor
    card = {
        "settings": settings,
        "passes": state.passes,
        "curve": state.curve,
        "held_out": state.held_out,
        "reseeded": state.reseeded,
        "sparse": sparse,
    }
    write_artefact(path, KIND, tensors, card)


def load_state(path: Path, settings: dict[str, Any]) -> LearningState | None:
    """The state that `save_state` wrote with equal settings; `None` where there is no file.

    Raises:
        InputError: the file is damaged, or no learning state.
        UsageError: it belongs to other settings.
    """
    if not path.is_file():
        return None
    tensors, card = read_artefact(path, KIND)
    try:
        _check_settings(path, card["settings"], settings)
        for name, tensor in tensors.items():
            if tensor.dtype not in _TYPES.get(name.partition("/")[0], ()):
                raise ValueError(f"{name} is of {tensor.dtype}")
        if not all(type(card[name]) is int and card[name] >= 0 for name in ("passes", "reseeded")):
            raise ValueError("its counts are none")
        memory = {name.removeprefix("dense/"): tensor for name, tensor in tensors.items() if name.startswith("dense/")}
        for name, shape in card["sparse"].items():
            indices, values = tensors[f"indices/{name}"], tensors[f"values/{name}"]
            # Checked, as indices outside the shape would be written to wherever they point.
            memory[name] = torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True, check_invariants=True)
        return LearningState(
            filters=tensors["filters"],
            passes=card["passes"],
            curve=tuple(map(float, card["curve"])),
            held_out=tuple(map(float, card["held_out"])),
            reseeded=card["reseeded"],
            memory=memory,
        )
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError | UsageError):
            raise
        raise InputError(f"{path} is no intact learning state ({error})", "delete it to start afresh") from None


def _check_settings(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            raise UsageError(
                f"{path} belongs to a learning with other settings ({name}: {theirs.get(name)}, not {ours.get(name)})",
                "delete it to start afresh",
            )
