"""What one process of a job measures: `torchrun --nproc-per-node N benchmarks/scaling_worker.py`; prints JSON.

A pass of consensus learning, steps of training, and sums over the processes, one thread each.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat import parallel
from quasinat.data import photograph
from quasinat.data.photographs import PHOTOGRAPHS
from quasinat.networks import vgg
from quasinat.sparse_coding import Consensus, learn_dictionary, tikhonov_split

BLOCKS, BLOCK, SIDE, FILTERS = 8, 32, 32, 64
PASSES, STEPS = 3, 12
MESSAGES = (64, 2**16, 2**20, 2**24)  # bytes


def images(count: int, side: int) -> Tensor:
    """Patches of the built-in photographs, at places of their own."""
    pictures = torch.stack([photograph(name, colour=True)[:, :224, :224] for name in PHOTOGRAPHS])
    room = 224 - side
    places = [(i % len(pictures), 37 * i % room, 53 * i % room) for i in range(count)]
    return torch.stack([pictures[n, :, y : y + side, x : x + side] for n, y, x in places])


def median_of(repeats: int, run: Callable[[], Any]) -> float:
    """Seconds, of runs that all processes begin together."""
    times = []
    for _ in range(repeats):
        parallel.wait_for_all()
        start = time.perf_counter()
        run()
        parallel.wait_for_all()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def consensus() -> dict[str, Any]:
    """Seconds of a pass, from passes after the first; how many sums of how many bytes it takes."""
    coded = tikhonov_split(images(BLOCKS * BLOCK, SIDE))[1].contiguous()
    learner = Consensus(block_size=BLOCK)
    ended: list[float] = []

    def learn(passes: int) -> None:
        start = time.perf_counter()
        learn_dictionary(
            coded, filters=FILTERS, size=8, sparsity=0.2, passes=passes, tolerance=0.0, learner=learner, seed=0
        )
        ended.append(time.perf_counter() - start)

    learn(1)
    sizes: list[int] = []
    summed = parallel.summed

    def counting(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return summed(tensor)

    import quasinat.sparse_coding.consensus as module

    module.summed = counting  # type: ignore[attr-defined]
    learn(1)
    module.summed = summed  # type: ignore[attr-defined]
    seconds = median_of(3, lambda: learn(1 + PASSES))
    first = median_of(3, lambda: learn(1))
    return {
        "blocks": BLOCKS,
        "seconds": (seconds - first) / PASSES,
        "rounds": len(sizes),
        "bytes": sum(sizes) / len(sizes),
        "images": len(coded),
        "side": SIDE,
    }


def training(batch: int) -> dict[str, Any]:
    """Seconds of a step of a small VGG on this process's share of a batch."""
    torch.manual_seed(0)
    network = vgg("vgg-small", classes=10).train()
    labels = torch.arange(batch) % 10
    inputs = images(batch, SIDE)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    messages = [0]
    summed = parallel.summed

    def counting(tensor: Tensor) -> Tensor:
        messages[0] += 1
        return summed(tensor)

    with parallel.trained_together(network, lambda x, y: F.cross_entropy(network(x), y)) as loss:

        def step() -> None:
            optimiser.zero_grad()
            loss(parallel.mine(inputs), parallel.mine(labels)).backward()
            optimiser.step()

        step()
        parallel.summed = counting
        step()
        parallel.summed = summed
        seconds = median_of(STEPS, step)
    gradient = sum(p.numel() * p.element_size() for p in network.parameters())
    return {"batch": batch, "seconds": seconds, "gradient": gradient, "messages": messages[0]}


def sums() -> dict[int, float]:
    """Seconds of a sum over the processes, by its bytes."""
    for _ in range(50):  # until the connections are warm
        parallel.summed(torch.ones(MESSAGES[-1] // 4))
    return {size: median_of(51, lambda size=size: parallel.summed(torch.ones(size // 4))) for size in MESSAGES}


def main() -> None:
    """Measures all of it; the process that leads prints it."""
    torch.set_num_threads(1)
    with parallel.process_group():
        empty = median_of(25, lambda: None)  # what the waiting itself takes
        found = {
            "processes": parallel.ranks(),
            "waiting": empty,
            "sums": sums(),
            "consensus": consensus(),
            "training": [training(128), training(64)],
        }
        if parallel.leads():
            print(json.dumps(found))


if __name__ == "__main__":
    main()
