"""The boundary cut against all boundaries there are."""

from collections.abc import Iterator
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from quasinat.defences.boundary_cut import takes_new

SIZES = [(3, 2, 2), (4, 2, 2), (5, 2, 2), (4, 3, 2), (4, 1, 3), (4, 3, 3), (3, 3, 1), (5, 2, 0), (5, 0, 3), (4, 4, 0)]


def branches(start: int, first: int, size: int, width: int) -> Iterator[dict[int, int]]:
    """Every path from (row `start`, column `first`) to the last row inside `width` columns: its column by row."""
    paths = [[first]]
    for _ in range(start + 1, size):
        paths = [[*path, path[-1] + step] for path in paths for step in (-1, 0, 1) if 0 <= path[-1] + step < width]
    for path in paths:
        yield dict(enumerate(path, start))


def boundaries(size: int, left: int, top: int) -> Iterator[tuple[set[tuple[int, int]], Tensor]]:
    """Every boundary: its pixels, and what is kept of the new patch, pixel by pixel."""
    bends = range(min(left, top)) if left and top else (None,)
    for bend in bends:
        starts = [(bend, bend)] if bend is not None else [(0, first) for first in range(max(left, top))]
        going = [[{}] if not width else [b for s in starts for b in branches(*s, size, width)] for width in (left, top)]
        for down, right in product(*going):
            pixels = {(row, column) for row, column in down.items()} | {(row, column) for column, row in right.items()}
            new = torch.zeros(size, size, dtype=torch.bool)
            for row, column in product(range(size), range(size)):
                if bend is not None and (row < bend or column < bend):
                    # Beyond the bend, the corner's rest is old, and one branch alone decides.
                    by_left = row > bend and column >= down[row]
                    by_top = column > bend and row >= right[column]
                    new[row, column] = by_left or by_top
                else:
                    new[row, column] = column >= down.get(row, 0) and row >= right.get(column, 0)
            yield pixels, new


@cache
def every_boundary(size: int, left: int, top: int) -> tuple[Tensor, Tensor]:
    """The boundaries' pixels and what they keep, each `boundaries size size`."""
    on, kept = [], []
    for pixels, new in boundaries(size, left, top):
        on.append(torch.zeros(size, size, dtype=torch.int64))
        for pixel in pixels:
            on[-1][pixel] = 1
        kept.append(new)
    return torch.stack(on), torch.stack(kept)


def cheapest(errors: Tensor, left: int, top: int) -> tuple[int, list[Tensor]]:
    """The least cost of a boundary, and what those that have it keep."""
    on, kept = every_boundary(len(errors), left, top)
    costs = (on * errors).sum((1, 2))
    return int(costs.min()), list(kept[costs == costs.min()])


@pytest.mark.parametrize(("size", "left", "top"), SIZES)
@pytest.mark.parametrize("most", [4, 2**40])
def test_it_is_the_cheapest_of_all(size: int, left: int, top: int, most: int, generator: torch.Generator) -> None:
    errors = torch.randint(most, (25, size, size), generator=generator)
    found = takes_new(errors, torch.full((25,), left), torch.full((25,), top))
    for error, kept in zip(errors, found, strict=True):
        _, best = cheapest(error, left, top)
        assert len(best) == 1 or most == 4
        assert any(kept.equal(one) for one in best)


def test_it_never_takes_less_than_what_nobody_else_has(generator: torch.Generator) -> None:
    errors = torch.randint(100, (200, 5, 5), generator=generator)
    left, top = (torch.randint(5, (200,), generator=generator) for _ in range(2))
    kept = takes_new(errors, left, top)
    index = torch.arange(5)
    alone = (index >= left[:, None, None]) & (index[:, None] >= top[:, None, None])
    assert kept[alone].all()
    assert not kept[(left > 0) & (top > 0)].all()


def test_patches_of_a_batch_are_cut_each_for_itself(generator: torch.Generator) -> None:
    errors = torch.randint(100, (50, 5, 5), generator=generator)
    left, top = (torch.randint(5, (50,), generator=generator) for _ in range(2))
    together = takes_new(errors, left, top)
    alone = [takes_new(errors[i : i + 1], left[i : i + 1], top[i : i + 1]) for i in range(50)]
    assert together.equal(torch.cat(alone))
    assert takes_new(errors[:0], left[:0], top[:0]).shape == (0, 5, 5)


def test_rows_and_columns_are_alike(generator: torch.Generator) -> None:
    errors = torch.randint(2**40, (50, 5, 5), generator=generator)
    left, top = (torch.randint(5, (50,), generator=generator) for _ in range(2))
    assert takes_new(errors.mT, top, left).equal(takes_new(errors, left, top).mT)


def test_ties_go_to_the_upper_left() -> None:
    errors = torch.zeros(5, 5, 5, dtype=torch.int64)
    errors[1, 0, 0] = 1  # the bend is elsewhere
    errors[2] = 1  # the bend at (1, 1) saves two pixels
    kept = takes_new(errors, torch.tensor([2, 2, 2, 2, 0]), torch.tensor([2, 2, 2, 0, 0]))
    # The bend moves to (1, 1), and each branch to its side as soon as it may.
    inner = torch.ones(5, 5, dtype=torch.bool)
    inner[0, :2] = inner[1, 0] = False
    assert kept[0].all()
    assert kept[1].equal(inner)
    assert kept[2].equal(inner)
    assert kept[3:].all()


def test_a_boundary_by_hand() -> None:
    errors = torch.tensor([[9, 1, 9], [9, 9, 1], [3, 9, 9]])[None]  # from column 2 to column 0 is too far: 1 + 1 + 9
    kept = takes_new(errors, torch.tensor([3]), torch.tensor([0]))
    assert cheapest(errors[0], 3, 0)[0] == 11
    assert kept[0].tolist() == [[False, True, True], [False, False, True], [False, True, True]]
