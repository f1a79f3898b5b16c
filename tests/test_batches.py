"""A set goes through in batches, which shrink where the memory is too small."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quasinat import batches
from quasinat.batches import free_memory, images_that_fit, project
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


@pytest.mark.parametrize(
    ("free", "expected"),
    [(None, 1024), (2**40, 1024), (2**26, 64), (2**26 + 2**20 - 2, 64), (1000, 1), (0, 1)],
)
def test_a_batch_is_what_half_of_the_free_memory_holds(
    free: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "free_memory", lambda device: free)
    assert images_that_fit(32, 32, 512, torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [(None, "0", 2**30), ("max", "5", 2**30), (str(2**20), "24", 2**20 - 24), (str(2**40), "0", 2**30), ("5", "7", 0)],
)
def test_free_memory_is_what_the_system_and_the_container_leave(
    limit: str | None, used: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {2**20} kB\n")
    monkeypatch.setattr(batches, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(batches, "CONTAINER", tmp_path)
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    assert free_memory(torch.device("cpu")) == expected
    (tmp_path / "meminfo").unlink()
    assert free_memory(torch.device("cpu")) is None


def test_this_machine_has_free_memory() -> None:
    free = free_memory(torch.device("cpu"))
    assert free is None or 2**20 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
