"""The certification of whole sets: the same numbers however interrupted, and files that can be checked by hand."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layers import dictionary_of
from quasinat.data import Dataset, photographs
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import accuracy_of, certify, largest_radius, lower_bound, noise_counts
from quasinat.experiments import certify as experiment
from quasinat.experiments.certify import CertifySettings, listed_radii, run_certify
from quasinat.experiments.models import digest
from quasinat.experiments.strata_report import held_out
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import vgg

SETTINGS = CertifySettings(samples=40, selection=10, alpha=0.05, images=5, batch_size=16)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return photographs(train_per_class=6, test_per_class=3)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps of two images and 15 copies, so that five images and 40 copies make many; one thread."""
    monkeypatch.setattr(experiment, "BLOCK", 2)
    monkeypatch.setattr(experiment, "PORTION", 15)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def layer_of(**options: Any) -> SparseTransformationLayer:
    return SparseTransformationLayer(None, [dictionary_of(1)], 1.0, **options)


class Directions(nn.Module):
    """The nearest of ten random directions: noise moves its answers."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.register_buffer("directions", torch.randn(1024, 10, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.directions


def models() -> dict[str, nn.Module]:
    return {"layer + net": Defended(layer_of(), Directions()), "net": Directions()}


class Log:
    """Notes what it hears; after so many reports the user presses Ctrl-C."""

    def __init__(self, interrupted_after: int = 1000) -> None:
        self.titles: list[str] = []
        self.notes: list[str] = []
        self.left = interrupted_after

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        self.titles.append(title)

        def report(done: int, note: str = "") -> None:
            self.left -= 1
            self.notes += [note] if note else []
            assert done <= total
            if self.left == 0:
                raise KeyboardInterrupt

        yield report


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what the clock and the number of threads say."""
    made = {name: value for name, value in report["provenance"].items() if name != "threads"}
    return {
        **report,
        "provenance": made,
        "rows": [{k: v for k, v in row.items() if k != "seconds"} for row in report["rows"]],
    }


@pytest.fixture(scope="module")
def finished(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that nobody interrupted, in steps of another size."""
    folder = tmp_path_factory.mktemp("certify") / "run"
    return folder, run_certify(models(), data, SETTINGS, folder)


def outcomes_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "certify.npz") as file:
        return dict(file)


@pytest.mark.parametrize("after", [1, 6, 13, 23])
def test_killed_and_continued_it_ends_as_if_it_had_not_been(
    after: int, data: Dataset, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_certify(models(), data, SETTINGS, tmp_path / "run", progress=Log(after))
    assert not (tmp_path / "run" / "certify.json").exists()
    assert len(list((tmp_path / "run" / "steps").iterdir())) == after
    report = run_certify(models(), data, SETTINGS, tmp_path / "run")
    assert numbers(report) == numbers(finished[1])
    assert (tmp_path / "run" / "certify.npz").read_bytes() == (finished[0] / "certify.npz").read_bytes()


def test_what_is_done_is_not_done_again(data: Dataset, tmp_path: Path) -> None:
    rows, calls = models(), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    rows["net"].register_forward_hook(count)
    alone = {"net": rows["net"]}
    first = run_certify(alone, data, SETTINGS, tmp_path / "run")
    once, calls = calls, 0
    assert run_certify(alone, data, SETTINGS, tmp_path / "run") == first
    assert calls == 1 < once  # the look at one image that every run begins with


def test_the_rows_are_those_of_certify_on_the_same_images(data: Dataset, finished: tuple[Path, dict[str, Any]]) -> None:
    test, labels = held_out(data, 5, SETTINGS.seed)
    stored = outcomes_of(finished[0])
    assert stored["rows"].tolist() == ["layer + net", "net"]
    assert stored["label"].tolist() == labels.tolist()
    for i, model in enumerate(models().values()):
        alone = certify(model, test, sigma=0.25, classes=10, samples=40, selection=10, alpha=0.05, batch_size=100)
        assert stored["class"][i].tolist() == alone.classes.tolist()
        assert stored["radius"][i].tolist() == alone.radii.tolist()
        assert stored["abstained"][i].tolist() == alone.abstained.tolist()
        for stream, samples in (("selection", 10), ("estimation", 40)):
            counts = noise_counts(model, test, sigma=0.25, samples=samples, classes=10, stream=stream)
            assert stored[stream][i].tolist() == counts.tolist()
    assert ((stored["estimation"] > 0).sum(2) > 1).any(1).all()  # each model wavers: the noise matters
    assert stored["selection"].sum(2).tolist() == [[10] * 5] * 2


def test_every_number_follows_from_the_outcomes(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    assert json.loads((folder / "certify.json").read_text()) == report
    stored = outcomes_of(folder)
    assert report["largest_radius"] == largest_radius(0.25, 40, 0.05)
    for i, row in enumerate(report["rows"]):
        right = stored["class"][i] == stored["label"]
        assert row["abstained"]["value"] == pytest.approx((stored["class"][i] == -1).mean())
        assert row["average_radius"] == pytest.approx((stored["radius"][i] * right).mean())
        assert [cell["radius"] for cell in row["certified"]] == listed_radii(0.25, report["largest_radius"])
        for cell in row["certified"]:
            hits = torch.from_numpy(right & (stored["radius"][i] > cell["radius"]))
            share = accuracy_of(hits)
            assert (cell["value"], cell["n"], cell["low"], cell["high"]) == (share.value, 5, share.low, share.high)
        curve = row["curve"]
        assert curve["value"] == sorted(curve["value"], reverse=True)
        assert (curve["value"][0], curve["value"][-1]) == (row["certified"][0]["value"], 0.0)
        assert curve["radius"][-1] == pytest.approx(report["largest_radius"])
        assert row["noisy_images"] == 5 * 50
    assert report["rows"][0]["layer"]["filters"] == 8
    assert [row["classifier"] for row in report["rows"]] == ["Directions"] * 2
    assert report["rows"][1]["layer"] is None


def test_a_model_that_always_answers_alike_has_the_largest_radius(data: Dataset, tmp_path: Path) -> None:
    class Third(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.eye(10)[3].expand(len(images), 10)

    report = run_certify({"third": Third()}, data, replace(SETTINGS, images=30), tmp_path / "run")
    (row,) = report["rows"]
    share = accuracy_of(held_out(data, 30, 0)[1] == 3)
    assert row["smoothed"]["value"] == share.value == 0.1
    assert {cell["value"] for cell in row["certified"]} == {0.1}
    assert row["average_radius"] == pytest.approx(0.1 * report["largest_radius"])
    assert lower_bound(40, 40, 0.05) > 0.5


def test_radii_go_by_half_deviations_below_the_largest() -> None:
    assert listed_radii(0.25, 0.6) == [0.0, 0.125, 0.25, 0.375, 0.5]
    assert listed_radii(0.5, 0.5) == [0.0, 0.25]
    assert listed_radii(0.5, 0.01) == [0.0]


def test_the_run_of_another_model_or_noise_is_refused_and_overwritten(data: Dataset, tmp_path: Path) -> None:
    rows = {"net": vgg("vgg-small", classes=10, channels=1)}
    run_certify(rows, data, SETTINGS, tmp_path / "run")
    for other, settings in (
        ({"net": vgg("vgg-small", classes=10, channels=1, seed=1)}, SETTINGS),
        (rows, replace(SETTINGS, sigma=0.5)),
        (rows, replace(SETTINGS, seed=1)),
    ):
        with pytest.raises(UsageError, match="--overwrite"):
            run_certify(other, data, settings, tmp_path / "run")
    fresh = run_certify(rows, data, replace(SETTINGS, sigma=0.5), tmp_path / "run", overwrite=True)
    assert fresh["settings"]["sigma"] == 0.5


def test_a_digest_knows_weights_and_the_layers_settings() -> None:
    network = vgg("vgg-small", classes=10, channels=1)
    layer = layer_of()
    seen = [
        network,
        vgg("vgg-small", classes=10, channels=1, seed=1),
        Defended(layer, network),
        Defended(layer.with_sparsity(0.4), network),
        Defended(layer_of(split="none"), network),
    ]
    assert len({digest(model) for model in seen}) == len(seen)
    assert digest(vgg("vgg-small", classes=10, channels=1)) == digest(network)


def test_what_cannot_be_certified_is_refused_before_a_folder_is_made(data: Dataset, tmp_path: Path) -> None:
    def refused(error: type, pattern: str, model: nn.Module) -> None:
        with pytest.raises(error, match=pattern):
            run_certify({"model": model}, data, SETTINGS, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    grey = vgg("vgg-small", classes=10, channels=1)
    refused(InputError, "takes 3 channels and the images have 1", vgg("vgg-small", classes=10))
    refused(InputError, "3 classes, not 10", vgg("vgg-small", classes=3, channels=1))
    colour = SparseTransformationLayer(None, [dictionary_of(3)], 0.3)
    refused(InputError, "1 channels and the filters 3", Defended(colour, grey))
    refused(UsageError, "over a batch", Defended(layer_of(refine=1, refine_over="batch"), grey))
    with pytest.raises(UsageError, match="no model"):
        run_certify({}, data, SETTINGS, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"sigma": 0.0}, "--sigma 0.0"),
        ({"sigma": float("nan")}, "--sigma nan"),
        ({"samples": 0}, "--samples 0"),
        ({"selection": 0}, "--selection 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"images": 0}, "--images 0"),
        ({"alpha": 0.0}, "--alpha 0.0"),
        ({"alpha": 1.5}, "--alpha 1.5"),
        ({"seed": -1}, "--seed -1"),
        ({"samples": 9, "alpha": 0.001}, "certify nothing.*at least 10"),
        ({"samples": 2, "alpha": 0.25}, "certify nothing.*at least 3"),  # 0.25^(1/2) is a half, not above it
    ],
)
def test_senseless_settings_are_refused(changes: dict, pattern: str) -> None:
    with pytest.raises(UsageError, match=pattern):
        CertifySettings(**changes)
    assert CertifySettings(samples=10, alpha=0.001).samples == 10
