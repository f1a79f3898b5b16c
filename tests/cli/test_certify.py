"""The command `certify`: what it prints, what it writes, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.test_certify import layer_of
from quasinat import cli
from quasinat.data import Dataset, photographs
from quasinat.experiments import strata_report
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import save_classifier, vgg


@pytest.fixture(scope="module")
def data() -> Dataset:
    return photographs(train_per_class=2, test_per_class=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, data: Dataset) -> None:
    """The image set is cut to a size that takes no time."""
    monkeypatch.setattr(strata_report, "image_set", lambda settings: data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a layer, two classifiers, one of colour images and a file that is none."""
    folder = tmp_path_factory.mktemp("certify")
    layer_of().save(folder / "layer.stl")
    for seed, name in enumerate(("net", "other")):
        save_classifier(folder / f"{name}.safetensors", vgg("vgg-small", classes=10, channels=1, seed=seed), {})
    save_classifier(folder / "colour.safetensors", vgg("vgg-small", classes=10), {})
    (folder / "notes.txt").write_text("no classifier")
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("quasinat: ")
    return lines[0]


@pytest.mark.usefixtures("small")
def test_certify(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "certified"
    arguments = ["certify", "--classifier", str(folder / "net.safetensors"), "--layer", str(folder / "layer.stl")]
    arguments += ["--compare", str(folder / "net.safetensors"), "--compare", str(folder / "other.safetensors")]
    arguments += ["--images", "3", "--samples", "20", "--selection", "5", "--alpha", "0.05", "--sigma", "0.12"]
    arguments += ["--device", "cpu", "--out", str(out)]
    assert cli.run(arguments) == 0
    printed = capsys.readouterr()
    assert "certified at 0.06" in printed.out
    assert "certify layer + net" in printed.err
    assert "noisy images" in printed.err
    assert "noisy images" not in printed.out
    names = {"run.json", "steps", "certify.json", "certify.npz", "certify.md", "certify.png"}
    assert {path.name for path in out.iterdir()} == names
    first = {name: (out / name).read_bytes() for name in names - {"steps"}}
    assert cli.run([*arguments, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report == json.loads(first["certify.json"])
    assert [row["name"] for row in report["rows"]] == ["layer + net", "net", "other"]
    expected = {"sigma": 0.12, "samples": 20, "selection": 5, "alpha": 0.05, "images": 3, "device": "cpu", "seed": 0}
    assert report["settings"].items() >= expected.items()
    assert {name: (out / name).read_bytes() for name in names - {"steps"}} == first
    with np.load(out / "certify.npz") as stored:
        assert stored["radius"].shape == (3, 3)
    assert str(folder) not in first["certify.json"].decode()


@pytest.mark.usefixtures("small")
def test_a_classifier_alone_is_enough(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["certify", "--classifier", str(folder / "net.safetensors"), "--out", str(tmp_path / "out"), "--json"]
    assert cli.run([*arguments, "--images", "2", "--samples", "10", "--selection", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["rows"]] == ["net"]
    assert report["settings"]["device"] == ("cuda" if torch.cuda.is_available() else "cpu")


NET = ["--classifier", "net.safetensors"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        ([*NET, "--out", "F", "--sigma", "0"], 2, ["--sigma 0", "0.25"]),
        ([*NET, "--out", "F", "--samples", "0"], 2, ["--samples 0", "positive"]),
        ([*NET, "--out", "F", "--samples", "5"], 2, ["--samples 5 can certify nothing", "at least 10"]),
        ([*NET, "--out", "F", "--alpha", "1"], 2, ["--alpha 1", "between 0 and 1"]),
        ([*NET, "--out", "F", "--images", "0"], 2, ["--images 0"]),
        ([*NET, "--out", "F", "--device", "cdua"], 2, ["cdua", "cuda"]),
        ([*NET, "--out", "F", "--data", "cifar"], 2, ["cifar", "cifar10"]),
        ([*NET, "--out", ".", "--overwrite"], 2, ["net.safetensors", "another --out"]),
        ([*NET, "--out", "F", "--compare", "net.safetensors"], 2, ["two models are named net"]),
        ([*NET, "--out", "F", "--layer", "net.safetensors"], 1, ["'classifier'", "'layer'"]),
        (["--classifier", "layer.stl", "--out", "F"], 1, ["layer.stl", "'classifier'"]),
        (["--classifier", "none.safetensors", "--out", "F"], 1, ["none.safetensors", "missing"]),
        (["--classifier", "notes.txt", "--out", "F"], 1, ["notes.txt"]),
        (["--classifier", "colour.safetensors", "--out", "F"], 1, ["takes 3 channels and the images have 1"]),
        ([*NET], 2, ["--out", "certify --help"]),
    ],
)
def test_bad_usage_is_one_line_with_a_remedy(
    arguments: list[str],
    status: int,
    parts: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert cli.run(["certify", *arguments]) == status
    line = one_line(capsys)
    assert all(part in line for part in parts), line
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["certify", "--classifier", str(folder / "net.safetensors"), "--out", str(folder / "F")]
    assert cli.run([*arguments, "--device", "cuda"]) == 2
    assert "--device cpu" in one_line(capsys)


def test_a_row_with_the_layer_is_defended_by_it(folder: Path) -> None:
    from quasinat.cli.certify import _models

    models = _models(folder / "net.safetensors", folder / "layer.stl", [])
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    layer, (alone,) = SparseTransformationLayer.load(folder / "layer.stl"), models.values()
    with torch.no_grad():
        expected = _models(folder / "net.safetensors", None, [])["net"](layer(images))
        assert alone(images).allclose(expected, atol=1e-5)


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["certify", "--help"]) == 0
    assert "quasinat certify --classifier" in capsys.readouterr().out
