"""How long a job takes on so many devices: a small simulation whose inputs are measured one by one.

Projecting is independent shards that workers take from a queue; learning is rounds that end when the last process has
sent its sum. `scaling.py` measures the inputs, holds what comes out against runs that it measures too, and
only then asks for machines that nobody here has.
"""

import heapq
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Worker:
    """A device and what feeds it; times are seconds an image.

    Attributes:
        computing: T(x).
        files: decoding and encoding on one core, reading and writing included.
        cores: that do this while the device computes; 0 where the device is the core itself, which does both in turn.
    """

    computing: float
    files: float
    cores: int = 0

    def seconds(self, images: int) -> float:
        """Of a shard, when the next is in hand meanwhile."""
        if self.cores == 0:
            return images * (self.computing + self.files)
        return images * max(self.computing, self.files / self.cores)


@dataclass(frozen=True)
class Network:
    """What a sum over all processes costs: seconds of a message, bytes a second of a process."""

    latency: float
    bandwidth: float

    def all_reduce(self, size: float, processes: int) -> float:
        """A ring: every process sends its bytes twice but for its own part, in 2 (n - 1) messages."""
        if processes == 1:
            return 0.0
        return 2 * (processes - 1) * (self.latency + size / processes / self.bandwidth)


def projection(
    images: int,
    shard: int,
    workers: int,
    worker: Worker,
    *,
    startup: float = 0.0,
    later: float = 0.0,
    store: float = math.inf,
    each: int = 0,
) -> float:
    """Seconds until the last shard is written.

    Args:
        images: of the set, `shard` of them in one.
        startup: seconds before the first worker takes a shard, and
        later: before the others do, beyond that.
        store: bytes a second that the store gives and takes, over all workers.
        each: bytes of an image, in and out.
    """
    free = [startup, *[startup + later] * (workers - 1)]
    left = images
    while left > 0:
        count = min(shard, left)
        begun = heapq.heappop(free)
        heapq.heappush(free, begun + worker.seconds(count))
        left -= count
    return max(max(free), startup + images * each / store)


def consensus_pass(
    seconds: float, blocks: int, processes: int, *, rounds: int, message: float, network: Network
) -> float:
    """Seconds of a pass of consensus learning that takes one process `seconds` for all its blocks.

    Args:
        rounds: sums of `message` bytes a pass.
    """
    share = math.ceil(blocks / min(processes, blocks)) / blocks
    return seconds * share + rounds * network.all_reduce(message, processes)
