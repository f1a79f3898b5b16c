"""Learning end to end: no fit sees a test image, and the layer says how it was made."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.tiny_cifar10 import tiny_cifar10, write_batch
from quasinat.artefact import read_artefact
from quasinat.data.training import training_images
from quasinat.experiments.learn import (
    AutoencoderSettings,
    DictionarySettings,
    Learning,
    StrataSettings,
    open_learning,
)
from quasinat.experiments.progress import Progress, Report, Silent
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Auto
from quasinat.strata import save_autoencoder, save_dictionaries

AUTOENCODER = AutoencoderSettings(width=4, epochs=3)
STRATA = StrataSettings(count=2, components=8)
DICTIONARIES = DictionarySettings(filters=3, size=4, passes=3, tolerance=0.0)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIFAR-10 of fifty training and ten test images."""
    tiny_cifar10(tmp_path / "data", monkeypatch)
    return tmp_path / "data"


def learn_layer(
    root: Path,
    out: Path,
    progress: Progress | None = None,
    *,
    overwrite: bool = False,
    autoencoder: AutoencoderSettings = AUTOENCODER,
    strata: StrataSettings = STRATA,
    dictionaries: DictionarySettings = DICTIONARIES,
) -> dict[str, Tensor]:
    """Learns a layer as `quasinat learn layer` does; its tensors."""
    learning = open_learning(lambda: training_images("cifar10", root), out, progress or Silent(), overwrite=overwrite)
    fitted = learning.strata(strata, learning.autoencoder(autoencoder))
    learning.layer(fitted, learning.dictionaries(dictionaries, fitted), dictionaries).save(out)
    learning.finish()
    return read_artefact(out, "layer")[0]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(value.equal(second[name]) for name, value in first.items())


def learn_parts(root: Path, folder: Path) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
    """Every kind of artefact, learned from the data at `root`: tensors and card."""
    folder.mkdir()
    learning = open_learning(lambda: training_images("cifar10", root), folder / "layer.stl", Silent())
    network = learning.autoencoder(AUTOENCODER)
    save_autoencoder(network, folder / "autoencoder", network.card["provenance"])
    strata = learning.strata(STRATA, network)
    strata.save(folder / "strata", strata.card["provenance"])
    learned = learning.dictionaries(DICTIONARIES, strata)
    save_dictionaries(learned, folder / "dictionaries", {"provenance": learning.provenance()})
    learning.layer(strata, learned, DICTIONARIES).save(folder / "layer")
    return {kind: read_artefact(folder / kind, kind) for kind in ("autoencoder", "strata", "dictionaries", "layer")}


class Interrupting:
    """Raises KeyboardInterrupt the first time that a report of a task fits; notes all reports."""

    def __init__(self, title: str = "", note: str = "", reports: int = 0) -> None:
        self.title, self.note, self.reports = title, note, reports
        self.notes: list[str] = []
        self.read = 0

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Report]:
        mine = bool(self.title) and title.endswith(self.title)
        seen = 0

        def report(done: int, note: str = "") -> None:
            nonlocal seen
            seen += 1
            if note:
                self.notes.append(note)
            if title.endswith("dictionaries"):
                self.read = done
            if mine and ((self.note and note.startswith(self.note)) or seen == self.reports):
                raise KeyboardInterrupt

        yield report


# Poisoning


def test_no_fit_sees_a_test_image(root: Path, tmp_path: Path) -> None:
    clean = learn_parts(root, tmp_path / "clean")
    test_batch = root / "cifar-10-batches-py" / "test_batch"
    write_batch(root, "test_batch", torch.full((10, 3, 32, 32), 255, dtype=torch.uint8))
    poisoned = learn_parts(root, tmp_path / "other-images")
    test_batch.write_bytes(b"\xff" * 30_000)
    garbled = learn_parts(root, tmp_path / "garbage")
    test_batch.unlink()
    removed = learn_parts(root, tmp_path / "removed")
    for kind, (tensors, card) in clean.items():
        for others in (poisoned, garbled, removed):
            assert same(others[kind][0], tensors), kind
            assert others[kind][1] == card, kind
        for folder in ("other-images", "garbage", "removed"):
            assert (tmp_path / folder / kind).read_bytes() == (tmp_path / "clean" / kind).read_bytes()


def test_every_training_pixel_is_in_the_fingerprint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = learn_parts(root, tmp_path / "clean")
    images = tiny_cifar10(root, monkeypatch)[20:30]
    images[4, 1, 16, 16] ^= 128
    write_batch(root, "data_batch_3", images)
    changed = learn_parts(root, tmp_path / "changed")
    for kind, (tensors, card) in clean.items():
        theirs = changed[kind][1]["provenance"]
        assert theirs["fingerprint"] != card["provenance"]["fingerprint"], kind
        assert theirs | {"fingerprint": None, "sizes": None} == card["provenance"] | {
            "fingerprint": None,
            "sizes": None,
        }
        assert not same(changed[kind][0], tensors), kind  # the tests above can fail


# What is made


def test_the_layer_says_how_it_was_made(root: Path, tmp_path: Path) -> None:
    learn_layer(root, tmp_path / "layer.stl")
    layer = SparseTransformationLayer.load(tmp_path / "layer.stl")
    made = layer.provenance
    assert (made["data"], made["images"]) == ("cifar10", 50)
    assert made["fingerprint"] == training_images("cifar10", root).fingerprint
    assert made["autoencoder"] == {"noise": 0.15, "width": 4, "epochs": 3, "seed": 0}
    assert made["strata"] == {"count": 2, "neighbours": 5, "components": 8, "seed": 0}
    assert made["dictionaries"]["filters"] == 3
    assert sum(made["sizes"]) == 50
    assert len(made["code"]) == 64
    assert layer.solver == Auto(tolerance=1e-2)
    assert (layer.sparsity, layer.split, layer.normalise, layer.refine) == (0.2, "tikhonov", "clip", 0)
    assert sum(past["images"] for past in layer.learned) == 50 - sum(size // 10 for size in made["sizes"])
    assert all(len(past["curve"]) == 3 and len(past["held_out"]) in (0, 4) for past in layer.learned)
    images = training_images("cifar10", root).images[:4]
    assert (layer(images) - images).abs().mean() < 0.2


def test_a_universal_dictionary_needs_no_strata(root: Path, tmp_path: Path) -> None:
    progress = Interrupting()
    learning = open_learning(lambda: training_images("cifar10", root), tmp_path / "layer.stl", progress)
    settings = replace(DICTIONARIES, images_each=9, split="mid-grey")
    (dictionary,) = learning.dictionaries(settings, None)
    assert dictionary.images == 9
    assert progress.notes[0].startswith("pass 0, held out ")
    layer = learning.layer(None, (dictionary,), settings, normalise="max", refine=1)
    assert (layer.strata, layer.split, layer.normalise, layer.refine) == (None, "mid-grey", "max", 1)
    assert "strata" not in layer.provenance
    learning.finish()
    learning.finish()  # where there is nothing to remove
    assert list(tmp_path.iterdir()) == [root]


def test_the_work_is_beside_the_file(root: Path, tmp_path: Path) -> None:
    learning = open_learning(lambda: training_images("cifar10", root), tmp_path / "a" / "layer.stl", Silent())
    assert isinstance(learning, Learning)
    assert learning.work == tmp_path / "a" / "layer.stl.learning"
    assert not learning.work.with_name("layer.stl").exists()
