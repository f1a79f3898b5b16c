"""Devices by name."""

import torch

from quasinat.errors import UsageError, did_you_mean

DEVICES = ("auto", "cpu", "cuda")


def device_named(name: str) -> str:
    """`auto`, `cpu` or `cuda` as the device to use: `auto` is a GPU where there is one.

    Raises:
        UsageError: another name, or `cuda` where there is none.
    """
    if name not in DEVICES:
        raise UsageError(f"unknown --device {name!r}", did_you_mean(name, list(DEVICES)))
    here = torch.cuda.is_available()
    if name == "cuda" and not here:
        raise UsageError("--device cuda: there is no CUDA device", "pass --device cpu, or auto")
    return "cuda" if here and name != "cpu" else "cpu"
