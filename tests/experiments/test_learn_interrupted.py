"""Learning is interrupted and started again: it ends, to the bit, as if it had not been; what is left is checked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from data.tiny_cifar10 import tiny_cifar10, write_batch
from experiments.test_learn import AUTOENCODER, DICTIONARIES, STRATA, Interrupting, learn_layer, root, same
from quasinat.artefact import read_artefact
from quasinat.data.training import TrainingImages, training_images
from quasinat.errors import UsageError
from quasinat.experiments.learn import open_learning
from quasinat.experiments.progress import Progress, Silent
from quasinat.strata import DenoisingAutoencoder

__all__ = ["root"]  # the fixture
EVERY = [(dictionary, done) for dictionary in (1, 2) for done in range(4)]


def passes(notes: list[str]) -> list[tuple[int, int]]:
    """The passes that ended, as (dictionary, pass)."""
    parts = [note.split() for note in notes if note.startswith("dictionary")]
    return [(int(words[1]), int(words[5].rstrip(","))) for words in parts]


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_interrupted_in_the_autoencoder(
    epoch: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = learn_layer(root, tmp_path / "whole.stl")
    forward, calls = DenoisingAutoencoder.forward, 0

    def counted(self: DenoisingAutoencoder, images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1  # one batch an epoch
        if calls == epoch:
            raise KeyboardInterrupt
        return forward(self, images)

    monkeypatch.setattr(DenoisingAutoencoder, "forward", counted)
    out = tmp_path / "layer.stl"
    with pytest.raises(KeyboardInterrupt):
        learn_layer(root, out)
    assert not out.exists()
    assert same(learn_layer(root, out), uninterrupted)
    assert calls == AUTOENCODER.epochs + 1
    assert out.read_bytes() == (tmp_path / "whole.stl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "layer.stl", "whole.stl"]


@pytest.mark.parametrize(("dictionary", "done"), [(1, 0), (1, 3), (2, 0), (2, 1), (2, 3)])
def test_interrupted_after_a_pass_nothing_is_done_twice(dictionary: int, done: int, root: Path, tmp_path: Path) -> None:
    whole = Interrupting()
    uninterrupted = learn_layer(root, tmp_path / "whole.stl", whole)
    assert passes(whole.notes) == EVERY
    out, first, second = (
        tmp_path / "layer.stl",
        Interrupting("dictionaries", f"dictionary {dictionary} of 2, pass {done}"),
        Interrupting(),
    )
    with pytest.raises(KeyboardInterrupt):
        learn_layer(root, out, first)
    assert not out.exists()
    assert same(learn_layer(root, out, second), uninterrupted)
    assert passes(first.notes) + passes(second.notes) == EVERY
    assert first.read + second.read == whole.read
    assert out.read_bytes() == (tmp_path / "whole.stl").read_bytes()
    assert not (tmp_path / "layer.stl.learning").exists()


@pytest.mark.parametrize("reports", [1, 5, 9, 13])
def test_interrupted_in_a_pass_only_that_pass_is_lost(reports: int, root: Path, tmp_path: Path) -> None:
    whole = Interrupting()
    uninterrupted = learn_layer(root, tmp_path / "whole.stl", whole)
    out, first, second = tmp_path / "layer.stl", Interrupting("dictionaries", reports=reports), Interrupting()
    with pytest.raises(KeyboardInterrupt):
        learn_layer(root, out, first)
    assert same(learn_layer(root, out, second), uninterrupted)
    assert 0 <= first.read + second.read - whole.read <= 50
    assert len(passes(first.notes) + passes(second.notes)) <= len(EVERY) + 1
    assert out.read_bytes() == (tmp_path / "whole.stl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"autoencoder": replace(AUTOENCODER, noise=0.3)}, "noise: 0.15, not 0.3"),
        ({"autoencoder": replace(AUTOENCODER, epochs=4)}, "epochs: 3, not 4"),
        ({"autoencoder": replace(AUTOENCODER, seed=1)}, "seed: 0, not 1"),
        ({"autoencoder": replace(AUTOENCODER, width=5)}, "width: 4, not 5"),
        ({"strata": replace(STRATA, count=3)}, "data: "),
        ({"dictionaries": replace(DICTIONARIES, sparsity=0.1)}, "sparsity: 0.2, not 0.1"),
        ({"dictionaries": replace(DICTIONARIES, passes=2)}, "passes: 3, not 2"),
        ({"dictionaries": replace(DICTIONARIES, split="mid-grey")}, "split: tikhonov, not mid-grey"),
    ],
)
def test_what_another_learning_left_is_refused(
    changes: dict[str, Any], problem: str, root: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "layer.stl", tmp_path / "layer.stl.learning"
    with pytest.raises(KeyboardInterrupt):
        learn_layer(root, out, Interrupting("dictionaries", "dictionary 2 of 2, pass 1"))
    left = {path.name: path.read_bytes() for path in work.iterdir()}
    names = {"code", "autoencoder", "dictionary-0", "dictionary-1"}
    assert {name.partition(".")[0] for name in left} == names
    with pytest.raises(UsageError, match=rf"layer\.stl\.learning/.* \({problem}.*\); delete it") as caught:
        learn_layer(root, out, **changes)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in work.iterdir()} == left
    assert not out.exists()


def test_what_was_left_by_other_images_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "dictionaries"

    def learn(progress: Progress) -> None:
        open_learning(lambda: training_images("cifar10", root), out, progress).dictionaries(DICTIONARIES, None)

    with pytest.raises(KeyboardInterrupt):
        learn(Interrupting("dictionaries", "pass 1"))
    images = tiny_cifar10(root, monkeypatch)[:10]
    images[0, 0, 0, 0] ^= 1
    write_batch(root, "data_batch_1", images)
    with pytest.raises(UsageError, match=r"other settings \(data: .*; delete it to start afresh"):
        learn(Silent())


def test_what_was_left_by_other_code_is_refused(root: Path, tmp_path: Path) -> None:
    out, mark = tmp_path / "layer.stl", tmp_path / "layer.stl.learning" / "code.json"
    with pytest.raises(KeyboardInterrupt):
        learn_layer(root, out, Interrupting("dictionaries", "dictionary 1 of 2, pass 1"))
    mark.write_text('{"code": "another"}')
    with pytest.raises(UsageError, match=r"layer\.stl\.learning was left by another version of the code; delete it"):
        learn_layer(root, out)
    assert not out.exists()


def test_an_existing_file_is_refused_before_any_data_is_read(tmp_path: Path) -> None:
    out = tmp_path / "layer.stl"
    out.write_text("mine")

    def read() -> TrainingImages:
        raise AssertionError("data was read")

    with pytest.raises(UsageError, match=r"layer\.stl exists; choose another --out, or pass --overwrite"):
        open_learning(read, out, Silent())
    with pytest.raises(AssertionError, match="data was read"):
        open_learning(read, out, Silent(), overwrite=True)
    assert out.read_text() == "mine"


def test_overwriting_starts_afresh(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "layer.stl"
    first = learn_layer(root, out)
    with pytest.raises(UsageError, match="exists"):
        learn_layer(root, out)
    progress = Interrupting()
    assert same(learn_layer(root, out, progress, overwrite=True), first)
    assert passes(progress.notes) == EVERY
    other = learn_layer(root, out, overwrite=True, dictionaries=replace(DICTIONARIES, seed=1))
    assert not same(other, first)
    with pytest.raises(KeyboardInterrupt):
        learn_layer(root, out, Interrupting("dictionaries", "dictionary 2"), overwrite=True)
    assert same(read_artefact(out, "layer")[0], other)  # the old file stays until the new one is whole
    finer = replace(DICTIONARIES, sparsity=0.1)
    fresh = learn_layer(root, out, overwrite=True, dictionaries=finer)  # whatever was left
    assert same(fresh, learn_layer(root, tmp_path / "fresh.stl", dictionaries=finer))
    assert not (tmp_path / "layer.stl.learning").exists()
