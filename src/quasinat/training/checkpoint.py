"""Checkpoints of a training: its whole state after an epoch, so that an interrupted run ends as one that was not."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quasinat.artefact import check_tensors, read_artefact, write_artefact
from quasinat.errors import InputError, UsageError

KIND = "checkpoint"
_MODULE, _OPTIMISER = "module.", "optimiser."
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps for each parameter


@dataclass(frozen=True)
class Checkpoint:
    """Where a training writes its state, and what tells it from other trainings.

    Args:
        path: one file, replaced after every epoch; the caller removes it when it is no longer wanted.
        fingerprint: whatever else decides the weights, such as the data's digest; anything that JSON holds.
    """

    path: Path
    fingerprint: Mapping[str, Any] = field(default_factory=dict)


def digest(*tensors: Tensor) -> str:
    """A fingerprint of data: the SHA-256 of the tensors' shapes, dtypes and values."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tuple(tensor.shape)} {tensor.dtype} ".encode())
        for part in tensor.detach().split(4096):
            total.update(part.cpu().contiguous().numpy().data)
    return total.hexdigest()


def write_checkpoint(
    checkpoint: Checkpoint,
    arguments: Mapping[str, Any],
    module: nn.Module,
    optimiser: Optimizer,
    schedule: LRScheduler,
    losses: Sequence[float],
) -> None:
    """Writes the state after the last of `losses`, the mean loss of each epoch so far; whole or not at all."""
    tensors = {_MODULE + name: value for name, value in module.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"{_OPTIMISER}{index}.{name}": state[name] for name in _MOMENTS}
    card = {
        **_identity(checkpoint, arguments),
        "losses": list(losses),
        "position": schedule.last_epoch,  # torch's word for the number of steps
        "groups": [{"lr": float(group["lr"]), "betas": list(group["betas"])} for group in optimiser.param_groups],
    }
    write_artefact(checkpoint.path, KIND, tensors, card)


def resume(
    checkpoint: Checkpoint,
    arguments: Mapping[str, Any],
    module: nn.Module,
    optimiser: Optimizer,
    schedule: LRScheduler,
) -> list[float]:
    """Brings module, optimiser and schedule to the state of the checkpoint.

    Returns:
        The mean loss of each epoch done; empty, and nothing is changed, when there is no file yet.

    Raises:
        InputError: the file is damaged, or holds another module's state.
        UsageError: it is of a training with other arguments or another fingerprint.
    """
    path = checkpoint.path
    if not path.exists():
        return []
    tensors, card = read_artefact(path, KIND)
    _check_identity(path, card, _identity(checkpoint, arguments))
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    kept = [index for index in range(len(parameters)) if f"{_OPTIMISER}{index}.step" in tensors]
    shapes = {_MODULE + name: tuple(value.shape) for name, value in module.state_dict().items()}
    for index in kept:  # a parameter that the loss does not reach has no moments
        of_parameter = tuple(parameters[index].shape)
        shapes |= {f"{_OPTIMISER}{index}.{name}": () if name == "step" else of_parameter for name in _MOMENTS}
    check_tensors(path, tensors, shapes)
    try:
        losses = [float(value) for value in card["losses"]]
        position = int(card["position"])
        groups = [{"lr": float(group["lr"]), "betas": tuple(map(float, group["betas"]))} for group in card["groups"]]
        if not 1 <= len(losses) <= arguments["epochs"] or len(groups) != len(optimiser.param_groups):
            raise ValueError(f"{len(losses)} epochs, {len(groups)} groups")
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no intact checkpoint ({error})", "delete it and train again") from None
    module.load_state_dict({name: tensors[_MODULE + name] for name in module.state_dict()})
    moments = {index: {name: tensors[f"{_OPTIMISER}{index}.{name}"] for name in _MOMENTS} for index in kept}
    for index in kept:
        for name in _MOMENTS[1:]:  # laid out in memory as the parameter is, as AdamW itself does
            moments[index][name] = torch.empty_like(parameters[index]).copy_(moments[index][name])
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    for group, values in zip(optimiser.param_groups, groups, strict=True):
        group.update(values)
    schedule.load_state_dict({"last_epoch": position, "_step_count": position + 1})
    return losses


def _identity(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> dict[str, Any]:
    identity: dict[str, Any] = json.loads(
        json.dumps({"arguments": dict(arguments), "fingerprint": dict(checkpoint.fingerprint)})
    )
    return identity


def _check_identity(path: Path, card: Mapping[str, Any], expected: Mapping[str, dict[str, Any]]) -> None:
    for part, ours in expected.items():
        theirs = card.get(part)
        if not isinstance(theirs, dict):
            raise InputError(f"{path} is no intact checkpoint (no {part})", "delete it and train again")
        for name in sorted({*ours, *theirs}):
            if ours.get(name) != theirs.get(name):
                raise UsageError(
                    f"{path} is the checkpoint of another training ({name}: {theirs.get(name)}, not {ours.get(name)})",
                    "delete it or name another file",
                )
