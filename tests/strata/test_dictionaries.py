"""One dictionary for each stratum: of its own images, held-out ones only watched; interruptions cost a pass."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layers import images_of, strata_of
from quasinat.data import photographs
from quasinat.errors import UsageError
from quasinat.sparse_coding import Batch, Consensus, Dictionary, Learner, LearningState, Online, history
from quasinat.strata import Strata, learn_dictionaries
from quasinat.strata.dictionaries import members_of

TINY: dict[str, Any] = {"filters": 3, "size": 4, "passes": 2, "tolerance": 0.0}


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Forty small images in colour."""
    return photographs(32, colour=True, train_per_class=4, test_per_class=1).train_images[:, :, :20, :20].contiguous()


def strata_by_number(images: Tensor) -> Strata:
    """Three strata whose members are known: image i is of stratum i % 3."""
    network = strata_of(3).autoencoder
    with torch.no_grad():
        return Strata(network, network.encode(images), torch.arange(len(images)) % 3, count=3, neighbours=1)


@pytest.fixture(scope="module")
def strata(images: Tensor) -> Strata:
    return strata_by_number(images)


def same(first: tuple[Dictionary, ...], second: tuple[Dictionary, ...]) -> bool:
    return len(first) == len(second) and all(
        ours.filters.equal(theirs.filters) and history(ours) == history(theirs)
        for ours, theirs in zip(first, second, strict=True)
    )


def test_each_dictionary_learns_from_its_own_stratum(strata: Strata, images: Tensor) -> None:
    seen: list[tuple[int, int]] = []
    dictionaries = learn_dictionaries(images, strata, **TINY, on_pass=lambda m, s: seen.append((m, s.passes)))
    assert seen == [(m, done) for m in range(3) for done in (0, 1, 2)]  # before the first pass and after each
    assert [dictionary.images for dictionary in dictionaries] == [13, 12, 12]  # of 14, 13 and 13: one is held out
    assert not any(a.filters.equal(b.filters) for a, b in pairwise(dictionaries))
    others = images.clone()
    others[strata.labels != 1] = others[strata.labels != 1].flip(-1).square()
    (first, own, last) = learn_dictionaries(others, strata_by_number(others), **TINY)
    assert own.filters.equal(dictionaries[1].filters)
    assert not first.filters.equal(dictionaries[0].filters)
    assert not last.filters.equal(dictionaries[2].filters)


def test_the_universal_dictionary_is_one(images: Tensor) -> None:
    dictionaries = learn_dictionaries(images, **TINY | {"passes": 1}, images_each=8)
    assert len(dictionaries) == 1
    assert dictionaries[0].filters.shape == (3, 3, 4, 4)
    assert dictionaries[0].images == 8
    assert len(dictionaries[0].held_out) == 2


def test_the_seed_decides(images: Tensor) -> None:
    first = learn_dictionaries(images, **TINY, images_each=8)
    assert same(first, learn_dictionaries(images, **TINY, images_each=8))
    assert not same(first, learn_dictionaries(images, **TINY, images_each=8, seed=1))


def test_an_empty_stratum_is_refused(strata: Strata, images: Tensor) -> None:
    wider = Strata(strata.autoencoder, strata.latents, strata.labels, count=4, neighbours=1)
    with pytest.raises(UsageError, match="stratum 3 holds no training image; ask for fewer strata"):
        learn_dictionaries(images, wider, **TINY | {"passes": 0}, images_each=2)


class Source:
    """8-bit images on disk, not in memory; notes which are read."""

    def __init__(self, images: Tensor, path: Path) -> None:
        np.save(path, (images * 255).round().to(torch.uint8).numpy())
        self.array, self.read = np.load(path, mmap_mode="r"), list[int]()

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Tensor) -> Tensor:
        self.read += rows.tolist()
        return torch.from_numpy(self.array[rows.numpy()])


def test_images_on_disk_give_what_they_give_in_memory(strata: Strata, images: Tensor, tmp_path: Path) -> None:
    source = Source(images, tmp_path / "images.npy")
    every = source[torch.arange(40)]
    assert every.dtype == torch.uint8
    from_disk = learn_dictionaries(source, strata, **TINY)
    assert same(from_disk, learn_dictionaries(every, strata, **TINY))
    assert same(from_disk, learn_dictionaries(every.float() / 255, strata, **TINY))
    assert members_of(source, strata).equal(members_of(every.float() / 255, strata))


@pytest.mark.parametrize("held_out", [0, 2, 256])
def test_no_filter_is_fitted_to_held_out_images(held_out: int, images: Tensor, tmp_path: Path) -> None:
    source = Source(images, tmp_path / "images.npy")
    fitted: list[int] = []
    (dictionary,) = learn_dictionaries(
        source, **TINY, held_out=held_out, on_read=lambda _, count: fitted.extend(source.read[-count:])
    )
    watched = set(range(40)) - set(fitted)
    assert len(watched) == min(held_out, 4)  # at most a tenth
    assert dictionary.images == 40 - len(watched)
    assert len(dictionary.held_out) == (3 if held_out else 0)
    changed = images.clone()
    changed[sorted(watched)] = changed[sorted(watched)].flip(-1) ** 2
    (again,) = learn_dictionaries(Source(changed, tmp_path / "changed.npy"), **TINY, held_out=held_out)
    assert again.filters.equal(dictionary.filters)
    assert again.curve == dictionary.curve
    assert (again.held_out == dictionary.held_out) == (not watched)


# Interruptions


def stopping(stratum: int, passes: int) -> Callable[[int, LearningState], None]:
    def on_pass(m: int, state: LearningState) -> None:
        if (m, state.passes) == (stratum, passes):
            raise KeyboardInterrupt

    return on_pass


@pytest.mark.parametrize("learner", [Batch(), Batch(keep_codes=False), Online(batch_size=5), Consensus(block_size=7)])
@pytest.mark.parametrize(("stratum", "passes"), [(0, 0), (1, 1), (2, 2)])
def test_an_interrupted_learning_ends_as_an_uninterrupted_one(
    learner: Learner, stratum: int, passes: int, strata: Strata, images: Tensor, tmp_path: Path
) -> None:
    options = TINY | {"learner": learner, "images_each": 10}
    uninterrupted = learn_dictionaries(images, strata, **options)
    with pytest.raises(KeyboardInterrupt):
        learn_dictionaries(images, strata, **options, checkpoint=tmp_path, on_pass=stopping(stratum, passes))
    torch.manual_seed(passes)  # the global generator has no part in it
    done: list[tuple[int, int]] = []
    again = learn_dictionaries(
        images, strata, **options, checkpoint=tmp_path, on_pass=lambda m, state: done.append((m, state.passes))
    )
    assert same(again, uninterrupted)
    every = [(m, turn) for m in range(3) for turn in (0, 1, 2)]
    assert done == every[every.index((stratum, passes)) + 1 :]


def test_in_the_middle_of_a_pass_only_that_pass_is_lost(strata: Strata, images: Tensor, tmp_path: Path) -> None:
    options = TINY | {"passes": 3, "learner": Online(batch_size=5)}
    whole: list[tuple[int, int]] = []
    uninterrupted = learn_dictionaries(images, strata, **options, on_read=lambda *read: whole.append(read))
    total, first = sum(count for _, count in whole), 0

    def stop(stratum: int, count: int) -> None:
        nonlocal first
        first += count
        if first > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_dictionaries(images, strata, **options, checkpoint=tmp_path, on_read=stop)
    rest: list[tuple[int, int]] = []
    again = learn_dictionaries(images, strata, **options, checkpoint=tmp_path, on_read=lambda *read: rest.append(read))
    assert same(again, uninterrupted)
    assert 0 < first + sum(count for _, count in rest) - total <= 13  # one pass over one stratum


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"filters": 4}, "filters: 3, not 4"),
        ({"size": 5}, "size: 4, not 5"),
        ({"sparsity": 0.1}, "sparsity: 0.2, not 0.1"),
        ({"split": "mid-grey"}, "split: tikhonov, not mid-grey"),
        ({"constraint": "per-channel"}, "constraint: joint, not per-channel"),
        ({"zero_mean": True}, "zero_mean: False, not True"),
        ({"passes": 1}, "passes: 2, not 1"),
        ({"tolerance": 0.5}, "tolerance: 0.0, not 0.5"),
        ({"learner": "online"}, "learner: 'auto', not 'online'"),
        ({"images_each": 4}, "data: "),
        ({"held_out": 0}, "data: "),
        ({"seed": 2}, "data: "),
    ],
)
def test_another_learnings_checkpoint_is_refused(
    changes: dict[str, Any], difference: str, images: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn_dictionaries(images, **TINY, checkpoint=tmp_path, on_pass=stopping(0, 0))
    with pytest.raises(UsageError, match=rf"other settings \({difference}.*\); delete it to start afresh"):
        learn_dictionaries(images, **TINY | changes, checkpoint=tmp_path)


def test_a_checkpoint_of_other_images_or_strata_is_refused(strata: Strata, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn_dictionaries(images, strata, **TINY, checkpoint=tmp_path, on_pass=stopping(1, 1))
    other = images.clone()
    other[39, 0, 3, 3] += 1e-3  # of stratum 0
    turned = Strata(strata.autoencoder, strata.latents, strata.labels.roll(1), count=3, neighbours=1)
    for arguments in ((other, strata), (images, turned)):
        with pytest.raises(UsageError, match=r"other settings \(data: "):
            learn_dictionaries(*arguments, **TINY, checkpoint=tmp_path)
    assert same(
        learn_dictionaries(images, strata, **TINY, checkpoint=tmp_path), learn_dictionaries(images, strata, **TINY)
    )


def test_members_are_the_strata_of_the_images(strata: Strata, images: Tensor) -> None:
    assert members_of(images, strata).tolist() == [i % 3 for i in range(40)]
    assert members_of(images, None).tolist() == [0] * 40
    assert members_of(images_of(3, 12), strata_of(3)).tolist() == [i % 3 for i in range(12)]
