"""The search against brute force over all patches, in whole numbers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from quasinat.defences import patch_search
from quasinat.defences.patch_search import GRID, PatchTree, on_grid
from quasinat.errors import InputError

SHAPES = [(3, 5, 5), (1, 5, 5), (2, 3, 3), (3, 7, 7)]  # of the last, squared distances go beyond float32


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_search, "_LEAF", 20)


def natural(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Patches whose pixels resemble each other, so that leaves can be ruled out."""
    channels, rows, columns = shape
    base = torch.rand(count, 1, 1, 1, generator=generator)
    slope = 0.2 * torch.randn(count, channels, 1, 1, generator=generator) * torch.linspace(-1, 1, columns)
    noise = 0.05 * torch.randn(count, channels, rows, columns, generator=generator)
    return (base + slope + noise).clamp(0, 1).flatten(1)


def eight_bit(values: Tensor) -> Tensor:
    return (255 * values).round().to(torch.uint8)


def whole(values: Tensor) -> np.ndarray:
    """Values on the grid of 1 / (255 * 256), as Python does it."""
    if values.dtype == torch.uint8:
        return values.numpy().astype(np.int64) * GRID
    return np.rint(values.numpy().astype(np.float64) * 255 * GRID).astype(np.int64)


def by_brute_force(bank: Tensor, sought: Tensor, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the nearest, ties by place, and all squared distances."""
    squares = ((whole(sought)[:, None] - whole(bank)[None]) ** 2).sum(2)
    return np.argsort(squares, axis=1, kind="stable")[:, :neighbours], squares


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("neighbours", [1, 3, 30])
@pytest.mark.parametrize("bytes_kept", [True, False])
@pytest.mark.parametrize("levels", [True, False])
def test_exact_is_brute_force(
    shape: tuple[int, int, int], neighbours: int, bytes_kept: bool, levels: bool, generator: torch.Generator
) -> None:
    bank, sought = natural(1003, shape, generator), natural(60, shape, generator)
    bank = eight_bit(bank) if bytes_kept else bank
    sought = eight_bit(sought).float() / 255 if levels else sought
    found = PatchTree(bank, shape).nearest(sought, neighbours)
    assert found.tolist() == by_brute_force(bank, sought, neighbours)[0].tolist()


@pytest.mark.parametrize("neighbours", [1, 5])
def test_ties_go_to_the_lowest_place(neighbours: int, generator: torch.Generator) -> None:
    bank = 255 * torch.randint(2, (400, 9), generator=generator).to(torch.uint8)
    sought = torch.randint(2, (80, 9), generator=generator).float()
    expected, squares = by_brute_force(bank, sought, neighbours)
    assert (np.sort(squares, axis=1)[:, 0] == np.sort(squares, axis=1)[:, neighbours]).mean() > 0.1  # they do occur
    assert PatchTree(bank, (1, 3, 3)).nearest(sought, neighbours).tolist() == expected.tolist()


def test_patches_far_from_all_others_are_found_too(generator: torch.Generator) -> None:
    bank = eight_bit(natural(500, (3, 5, 5), generator) / 2)
    sought = torch.cat([torch.rand(30, 75, generator=generator), torch.ones(1, 75), torch.zeros(1, 75)])
    expected = by_brute_force(bank, sought, 2)[0]
    assert PatchTree(bank, (3, 5, 5)).nearest(sought, 2).tolist() == expected.tolist()


def test_faiss_finds_the_same(generator: torch.Generator) -> None:
    import faiss

    bank, sought = eight_bit(natural(2000, (3, 5, 5), generator)), eight_bit(natural(100, (3, 5, 5), generator))
    index = faiss.IndexFlatL2(75)
    index.add(bank.float().numpy())
    squares, _ = index.search(sought.float().numpy(), 4)
    found = PatchTree(bank, (3, 5, 5)).nearest(sought.float() / 255, 4)
    mine = (bank[found].float() - sought[:, None].float()).square().sum(2)
    assert mine.tolist() == squares.tolist()  # whole numbers, exact in float32


def test_fast_keeps_its_promise_and_finds_what_is_there(generator: torch.Generator) -> None:
    shape = (3, 5, 5)
    bank, sought = eight_bit(natural(2000, shape, generator)), natural(200, shape, generator)
    tree = PatchTree(bank, shape)
    _, squares = by_brute_force(bank, sought, 1)
    for slack, neighbours in ((0.05, 1), (0.1, 1), (0.2, 1), (0.3, 1), (1.0, 4), (3.0, 2)):
        found = tree.nearest(sought, neighbours, slack).numpy()
        own = np.take_along_axis(squares, found, axis=1)
        assert (own <= (1 + slack) ** 2 * np.sort(squares, axis=1)[:, :neighbours]).all()
        assert (np.diff(own, axis=1) >= 0).all()
        assert all(len(set(row)) == neighbours for row in found.tolist())
    wide = (tree.nearest(sought, 1, 3.0) != tree.nearest(sought, 1)).float().mean()
    assert wide > 0  # something is passed over, or the slack does nothing
    assert tree.nearest(bank.float() / 255, 1, 3.0)[:, 0].equal(torch.arange(2000))


def test_the_bounds_are_below_all_distances_of_a_leaf(generator: torch.Generator) -> None:
    shape = (3, 5, 5)
    bank, sought = natural(800, shape, generator), natural(50, shape, generator)
    tree = PatchTree(bank, shape)
    bounds = tree._bounds(on_grid(sought)).double().numpy()
    squares = by_brute_force(bank, sought, 1)[1] / GRID**2
    for leaf, members in enumerate(tree.members):
        assert (bounds[:, leaf] <= squares[:, members.numpy()].min(1)).all()
    assert sorted(torch.cat(tree.members).tolist()) == list(range(800))
    assert len(tree.members) > 20
    assert (bounds > 0).mean() > 0.5


@pytest.mark.parametrize("bytes_kept", [True, False])
@pytest.mark.parametrize("levels", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 5), (3, 11, 11)])
def test_no_leaf_is_passed_over_that_holds_something_as_near(
    shape: tuple[int, int, int], bytes_kept: bool, levels: bool, generator: torch.Generator
) -> None:
    # Bright patches a few levels apart: squared distances are small beside the squares that they are made of.
    bank, sought = (1 - 0.02 * natural(count, shape, generator) for count in (400, 200))
    bank = eight_bit(bank) if bytes_kept else bank
    sought = eight_bit(sought).float() / 255 if levels else sought
    tree = PatchTree(bank, shape)
    rows = torch.arange(len(sought))
    seen = patch_search._sought(sought, 1, tree.rounding, tree.coarse)
    squares = torch.from_numpy(by_brute_force(bank, sought, 1)[1]) / GRID**2
    for leaf, members in enumerate(tree.members):
        least = squares[:, members].amin(1).float()
        assert tree._could_hold(leaf, rows, seen, least * (1 + 1e-6)).all()
        if bytes_kept and levels:  # nothing was rounded, so that the test is sharp
            assert not tree._could_hold(leaf, rows, seen, least * (1 - 1e-4))[least > 0].any()


@pytest.mark.parametrize("slack", [0.0, 1.0])
def test_batch_and_threads_change_nothing(slack: float, generator: torch.Generator) -> None:
    shape = (3, 5, 5)
    tree = PatchTree(eight_bit(natural(800, shape, generator)), shape)
    sought = natural(40, shape, generator)
    whole_batch = tree.nearest(sought, 3, slack)
    assert torch.cat([tree.nearest(one, 3, slack) for one in sought.split(1)]).equal(whole_batch)
    assert torch.cat([tree.nearest(some, 3, slack) for some in sought.split(33)]).equal(whole_batch)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert tree.nearest(sought, 3, slack).equal(whole_batch)
    finally:
        torch.set_num_threads(threads)
    assert tree.nearest(sought[:0], 3, slack).shape == (0, 3)


def test_batches_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    tree = PatchTree(eight_bit(natural(500, (1, 5, 5), generator)), (1, 5, 5))
    sought = natural(50, (1, 5, 5), generator)
    at_once = tree.nearest(sought, 2)
    monkeypatch.setattr(patch_search, "_BOUNDS_AT_ONCE", 7 * len(tree.leaves))
    assert tree.nearest(sought, 2).equal(at_once)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_bank_of_few(count: int, generator: torch.Generator) -> None:
    bank, sought = natural(count, (1, 3, 3), generator), natural(10, (1, 3, 3), generator)
    expected = by_brute_force(bank, sought, count)[0]
    assert PatchTree(bank, (1, 3, 3)).nearest(sought, count).tolist() == expected.tolist()


def test_what_whole_numbers_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="too many"):
        PatchTree(torch.zeros(1, dtype=torch.uint8).expand(2, 10**6), (10**6, 1, 1))
