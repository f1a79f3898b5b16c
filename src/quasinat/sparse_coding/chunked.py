"""Runs a function over a batch in pieces that fit the cache, on as many threads as torch may use."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Answer = TypeVar("Answer")
PIXELS_PER_CHUNK = 16 * 32 * 32


def chunks_of(count: int, height: int, width: int) -> list[slice]:
    """Slices of a batch of `count` images such that the codes of each stay in a core's cache."""
    size = max(1, PIXELS_PER_CHUNK // (height * width))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def map_chunks(function: Callable[[slice], Answer], chunks: Sequence[slice]) -> list[Answer]:
    """`[function(chunk) for chunk in chunks]`, without gradients, several chunks at a time on several cores.

    A chunk on one thread beats one operation on two: the pieces are small and share nothing.
    """

    def without_gradient(chunk: slice) -> Answer:
        with torch.no_grad():
            return function(chunk)

    threads = torch.get_num_threads()
    if threads == 1 or len(chunks) == 1:
        return [without_gradient(chunk) for chunk in chunks]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(without_gradient, chunks))
    finally:
        torch.set_num_threads(threads)
