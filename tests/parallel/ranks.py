"""Runs a function on several processes of one job, as `torchrun` would start them, on this machine's CPUs."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat import parallel
from quasinat.files import read_tensors, write_tensors

Found = dict[str, Tensor]


def on_ranks(count: int, function: Callable[..., Found], folder: Path, *arguments: Any) -> list[Found]:
    """What the function returns on each of `count` processes; of one, in this process itself.

    Args:
        function: at the top level of a module.
        folder: for what they return.
    """
    if count == 1:
        return [function(*arguments)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        _one, (count, port, function, folder, arguments), nprocs=count, start_method="spawn"
    )
    return [read_tensors(folder / f"{rank}-of-{count}.safetensors")[0] for rank in range(count)]


def _one(
    rank: int, count: int, port: int, function: Callable[..., Found], folder: Path, arguments: tuple[Any, ...]
) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    torch.set_num_threads(1)
    with parallel.process_group():
        assert (parallel.rank(), parallel.ranks()) == (rank, count)
        write_tensors(folder / f"{rank}-of-{count}.safetensors", function(*arguments))
    os._exit(0)  # as the command does, see `quasinat.cli.main`
