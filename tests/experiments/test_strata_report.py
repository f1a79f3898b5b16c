"""The strata's report: every share counted by hand, every PSNR against a layer of that one dictionary."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quasinat.data import Dataset, photographs
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import psnr, wilson_interval
from quasinat.experiments import DemoSettings
from quasinat.experiments.strata_report import held_out, quality, run_strata_report, strata_report
from quasinat.files import write_tensors
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import vgg
from quasinat.sparse_coding import Dictionary, project_filters
from quasinat.strata import DenoisingAutoencoder, Strata

SETTINGS = DemoSettings(epochs=1, bim_steps=3, cw_steps=4, cw_search_steps=2)


def dictionary_of(channels: int, seed: int = 0, filters: int = 6, size: int = 5) -> Dictionary:
    atoms = torch.randn(filters, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return Dictionary(project_filters(atoms, "joint"), "joint", 0.05)


def stratified(
    images: Tensor, count: int = 3, neighbours: int = 1, labels: Tensor | None = None
) -> SparseTransformationLayer:
    """A layer whose strata were made of `images`, by default 0, 1, 2, 0, ... of them; nothing is trained."""
    channels = images.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        autoencoder = DenoisingAutoencoder(channels, 4).eval()
    with torch.no_grad():
        latents = autoencoder.encode(images)
    labels = torch.arange(len(images)) % count if labels is None else labels
    strata = Strata(autoencoder, latents, labels, count=count, neighbours=neighbours)
    return SparseTransformationLayer(strata, [dictionary_of(channels, m) for m in range(count)], 0.05)


def universal(channels: int = 1, seed: int = 0) -> SparseTransformationLayer:
    return SparseTransformationLayer(None, [dictionary_of(channels, seed)], 0.05)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return photographs(train_per_class=6, test_per_class=3)


@pytest.fixture(scope="module")
def images(data: Dataset) -> Tensor:
    return data.test_images[::2][:12]


class Log:
    """Notes the tasks; at one of them the user presses Ctrl-C."""

    def __init__(self, interrupted_at: str = "") -> None:
        self.titles: list[str] = []
        self.interrupted_at = interrupted_at

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        if title == self.interrupted_at:
            raise KeyboardInterrupt
        self.titles.append(title)
        yield lambda done: None


def test_each_dictionary_is_judged_like_a_layer_of_its_own(images: Tensor) -> None:
    layer = stratified(images)
    measured = quality(layer, images)
    assert measured["psnr"].shape == measured["nonzero"].shape == (3, 12)
    for m in range(3):
        torch.testing.assert_close(measured["psnr"][m], psnr(universal(1, m)(images), images), rtol=0, atol=1e-3)
    assert 0 < measured["nonzero"].min() < measured["nonzero"].max() < 0.5


def test_the_shares_are_those_counted_by_hand(images: Tensor) -> None:
    layer = stratified(images)
    assert layer.stratum(images).tolist() == [0, 1, 2] * 4
    moved = images.clone()
    moved[[0, 3]] = images[[1, 4]]  # two of stratum 0 go to stratum 1
    moved[5] = images[2]  # stays in stratum 2
    right = {"clean": torch.ones(12, dtype=torch.bool), "fgsm-0.04": torch.arange(12) < 3}
    each = {"psnr": torch.tensor([20.0, 30.0, 40.0])[:, None].expand(3, 12), "nonzero": torch.full((3, 12), 0.1)}
    report = strata_report(layer, {"clean": images, "fgsm-0.04": moved}, right, each)
    low, high = wilson_interval(10, 12)
    expected = {"value": 10 / 12, "n": 12, "low": low, "high": high}
    assert report["columns"]["fgsm-0.04"]["unchanged"] == expected
    assert report["columns"]["fgsm-0.04"]["unchanged_full_margin"] == expected  # one neighbour is of one mind
    assert report["columns"]["fgsm-0.04"]["right"]["value"] == 0.25
    assert "unchanged" not in report["columns"]["clean"]
    assert [part["unchanged"]["fgsm-0.04"]["value"] for part in report["strata"]] == [0.5, 1, 1]
    assert [(part["fit"], part["test"]) for part in report["strata"]] == [(4, 4)] * 3
    assert report["all"]["margin"] == {"value": 1.0, "n": 12}
    found = [(part["psnr"]["own"]["value"], part["psnr"]["other"]["value"]) for part in report["strata"]]
    assert found == [(20, 35), (30, 30), (40, 25)]
    assert report["all"]["psnr"] == {
        "own": {"value": 30.0, "n": 12},
        "other": {"value": 30.0, "n": 12},
        "universal": None,
    }
    json.dumps(report, allow_nan=False)


def test_what_is_not_there_is_none_and_exact_images_are_left_out(images: Tensor) -> None:
    layer = stratified(images, count=3)
    some = images[[0, 1, 3, 4]]  # none of stratum 2
    each = quality(layer, some)
    each["psnr"][0, 0] = math.inf
    hits = {"clean": torch.ones(4, dtype=torch.bool)}
    report = strata_report(layer, {"clean": some}, hits, each, quality(universal(), some))
    empty = report["strata"][2]
    assert (empty["test"], empty["margin"], empty["full_margin"], empty["psnr"]["own"]) == (0, None, None, None)
    assert [part["psnr"]["own"]["n"] for part in report["strata"][:2]] == [1, 2]
    assert report["all"]["psnr"]["universal"]["n"] == 4
    json.dumps(report, allow_nan=False)
    alone = stratified(images, count=1)
    report = strata_report(alone, {"clean": some}, hits, quality(alone, some))
    assert report["all"]["psnr"]["other"] is None


def test_the_margin_parts_the_images(images: Tensor) -> None:
    like_it = stratified(images, 1).strata
    assert like_it is not None
    distance = (like_it.latents - like_it.latents[0]).norm(dim=1)
    layer = stratified(images, 2, neighbours=3, labels=(distance > distance.median()).long())
    assert layer.strata is not None
    members, margins = layer.strata.vote(images)
    sets = {"clean": images, "bim-0.03": (images + 0.05).clamp(0, 1)}
    hits = dict.fromkeys(sets, torch.ones(12, dtype=torch.bool))
    report = strata_report(layer, sets, hits, quality(layer, images))
    full = margins == 1
    assert 0 < full.sum() < 12
    share = report["columns"]["bim-0.03"]["unchanged_full_margin"]
    same = layer.stratum(sets["bim-0.03"])[full] == members[full]
    assert (share["n"], share["value"]) == (int(full.sum()), float(same.double().mean()))
    assert report["all"]["margin"]["value"] == pytest.approx(float(margins.mean()))


def test_held_out_images_are_a_draw_of_the_test_images(data: Dataset) -> None:
    few, labels = held_out(data, 5, seed=3)
    more, _ = held_out(data, 10_000, seed=3)
    assert len(more) == len(data.test_images)
    assert more[:5].equal(few)
    for image, label in zip(few, labels, strict=True):
        place = (data.test_images == image).flatten(1).all(1).nonzero()[0, 0]
        assert data.test_labels[place] == label
    with pytest.raises(UsageError, match="--images 0"):
        held_out(data, 0, seed=0)


def test_a_run_continues_and_refuses_another(data: Dataset, tmp_path: Path) -> None:
    layer, log, rest = stratified(data.train_images[:30]), Log("attack deepfool-0.03"), Log()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        run_strata_report(layer, data, SETTINGS, tmp_path / "a", images=8, universal=universal(), progress=log)
    report, test = run_strata_report(
        layer, data, SETTINGS, tmp_path / "a", images=8, universal=universal(), progress=rest
    )
    assert rest.titles[:2] == ["attack deepfool-0.03", "attack cw-0.03"]
    assert all(tensor.equal(before[name]) for name, tensor in layer.state_dict().items())  # attacks fit nothing
    attacks = ["fgsm-0.08", "fgsm-0.04", "bim-0.03", "deepfool-0.03", "cw-0.03"]
    assert list(report["columns"]) == ["clean", *attacks]
    assert log.titles[0] == "train the vanilla classifier"
    assert len(test) == report["data"]["n"] == report["all"]["test"] == 8
    assert report["all"]["fit"] == 30
    assert report["settings"].items() <= SETTINGS.as_json().items()
    assert {"network", "seed", "cw_steps"} < report["settings"].keys()
    assert not {"root", "train_per_class", "filters"} & report["settings"].keys()  # of this machine, or not used
    assert all(part["right"]["n"] == 8 for part in report["columns"].values())
    again = Log()
    continued, _ = run_strata_report(
        layer, data, SETTINGS, tmp_path / "a", images=8, universal=universal(), progress=again
    )
    assert again.titles == []
    assert continued == report
    with pytest.raises(UsageError, match="another --out"):
        run_strata_report(layer, data, SETTINGS, tmp_path / "a", images=7, universal=universal())


def test_a_given_classifier_is_not_trained(data: Dataset, tmp_path: Path) -> None:
    layer, log = stratified(data.train_images[:30]), Log()
    weights = vgg("vgg-small", classes=len(data.classes), channels=1, seed=5).state_dict()
    write_tensors(tmp_path / "model.safetensors", weights)
    report, _ = run_strata_report(
        layer, data, SETTINGS, tmp_path / "run", images=4, model=tmp_path / "model.safetensors", progress=log
    )
    assert "train the vanilla classifier" not in log.titles
    assert report["model"] == "model.safetensors"
    write_tensors(tmp_path / "other.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(InputError, match="does not fit the network"):
        run_strata_report(layer, data, SETTINGS, tmp_path / "no", images=4, model=tmp_path / "other.safetensors")
    assert not (tmp_path / "no").exists()


def test_layers_that_do_not_fit_are_refused_before_anything_is_written(data: Dataset, tmp_path: Path) -> None:
    layer = stratified(data.train_images[:30])
    settings: DemoSettings = SETTINGS
    with pytest.raises(UsageError, match=r"no strata; pass a layer learned with strata"):
        run_strata_report(universal(), data, settings, tmp_path / "run")
    with pytest.raises(UsageError, match="--universal names a layer with strata"):
        run_strata_report(layer, data, settings, tmp_path / "run", universal=layer)
    with pytest.raises(InputError, match="1 channels and the filters 3"):
        run_strata_report(layer, data, settings, tmp_path / "run", universal=universal(3))
    assert not (tmp_path / "run").exists()
