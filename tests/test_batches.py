"""A set goes through in batches, which shrink where the memory is too small."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from quasinat.batches import project
from quasinat.errors import InputError

ERRORS = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory: 7 bytes")]


def of_at_most(most: int, error: Exception, sizes: list[int]) -> Callable[[Tensor], Tensor]:
    """Doubles as many images as fit."""

    def transform(images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > most:
            raise error
        return 2 * images

    return transform


@pytest.mark.parametrize("error", ERRORS, ids=["python", "cuda", "cpu"])
def test_batches_are_halved_until_they_fit(error: Exception, generator: torch.Generator) -> None:
    images, sizes, done = torch.rand(11, 3, 4, 5, generator=generator), [], []
    made = project(of_at_most(3, error, sizes), images, batch_size=8, on_batch=done.append)
    assert made.equal(2 * images)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert done == [2, 4, 6, 8, 10, 11]


def test_what_cannot_be_halved_and_other_failures_are_told() -> None:
    images = torch.rand(3, 3, 4, 5)
    with pytest.raises(InputError, match="too small for an image of 4 x 5 pixels; give smaller images"):
        project(of_at_most(0, MemoryError(), []), images)
    with pytest.raises(RuntimeError, match="something else"):
        project(of_at_most(0, RuntimeError("something else"), []), images)


def test_memory_that_is_really_full_is_seen_as_such() -> None:
    asked: list[int] = []

    def greedy(images: Tensor) -> Tensor:
        asked.append(len(images))
        if len(images) > 1:
            torch.empty(2**56, dtype=torch.uint8)  # more than any machine has
        return images

    images = torch.rand(2, 1, 2, 2)
    assert project(greedy, images).equal(images)
    assert asked == [2, 1, 1]
