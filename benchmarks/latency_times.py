"""How benchmarks/latency.py times a function of images: one image at a time, and a batch."""

import statistics
import time
from collections.abc import Callable

from torch import Tensor

SECONDS, CALLS, LEAST = 2.0, 200, 3  # of the latency of one setting, at most, and at least so many calls
LONG = 5.0  # seconds of a call of a batch that are not spent again: what the first call allocates is little of them
Run = Callable[[Tensor], Tensor]


def latency(run: Run, images: Tensor, seconds: float) -> dict[str, float | int]:
    """Milliseconds of one image, each call with the next; the slowest stands for p99 below a hundred calls."""
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < 1e3 * seconds and len(times) < CALLS):
        image = images[len(times) % len(images)][None]
        start = time.perf_counter()
        run(image)
        times.append(1e3 * (time.perf_counter() - start))
    ordered = sorted(times)
    return {"p50": statistics.median(times), "p99": ordered[int(0.99 * len(ordered))], "calls": len(times)}


def rate(run: Run, images: Tensor, seconds: float) -> dict[str, float | int]:
    """Images a second in one batch: of the median call, after one that is not counted.

    A first call of more than `LONG` seconds stands alone.
    """
    times: list[float] = []
    while len(times) < 1 + LEAST or (sum(times[1:]) < seconds and len(times) < CALLS):
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
        if times[0] > LONG:
            break
    counted = times[1:] or times
    return {"images a second": len(images) / statistics.median(counted), "calls": len(counted)}
