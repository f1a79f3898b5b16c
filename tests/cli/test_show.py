"""The commands `show`: what they print, what they write, and how they refuse."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow

from experiments.test_strata_report import stratified, universal
from quasinat import cli
from quasinat.cli.app import app
from quasinat.cli.show import show
from quasinat.data import Dataset, photographs
from quasinat.experiments import strata_report
from quasinat.layer import SparseTransformationLayer
from quasinat.report import filter_sheet


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    if not any(group.typer_instance is show for group in app.registered_groups):
        app.add_typer(show, name="show")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return photographs(train_per_class=6, test_per_class=3)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, data: Dataset) -> None:
    """The image set is cut to a size that takes seconds."""
    for module in (strata_report, filter_sheet):
        monkeypatch.setattr(module, "image_set", lambda settings: data)


@pytest.fixture(scope="module")
def folder(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a layer with strata, a universal one, an image and a file that is none."""
    folder = tmp_path_factory.mktemp("show")
    stratified(data.train_images[:30]).save(folder / "layer.stl")
    universal().save(folder / "universal.stl")
    pixels = (255 * data.test_images[0, 0]).round().to(torch.uint8).numpy()
    Pillow.fromarray(pixels).save(folder / "image.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("quasinat: ")
    return lines[0]


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_filters(folder: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"filters.{suffix}"
    assert cli.run(["show", "filters", str(folder / "layer.stl"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.stat().st_size > 1000


def test_filters_of_several_layers(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "filters.svg"
    several = [str(folder / name) for name in ("layer.stl", "universal.stl")]
    assert cli.run(["show", "filters", *several, "--out", str(out)]) == 0
    said = re.findall(r"K = (\d+), S = (\d+), λ = [\d.]+(?:, stratum (\d+))?<", out.read_text())
    shapes = [SparseTransformationLayer.load(Path(name)).filters.shape for name in several]
    expected = [(str(shape[1]), str(shape[-1]), m) for shape in shapes for m in range(shape[0])]
    assert sorted((k, s, int(m or 0)) for k, s, m in said) == sorted(expected)
    sizes = [(int(k), int(s)) for k, s, _ in said]
    assert sizes == sorted(sizes)


@pytest.mark.usefixtures("small")
def test_filters_by_use(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "filters.svg"
    arguments = ["show", "filters", str(folder / "layer.stl"), "--out", str(out)]
    assert cli.run([*arguments, "--data", "photographs", "--images", "9"]) == 0
    assert "most used first, on 9 test images of photographs" in out.read_text()


def test_codes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "codes.png"
    arguments = ["show", "codes", str(folder / "layer.stl"), str(folder / "image.png"), "--out", str(out)]
    assert cli.run(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for name in ("stratum", "margin", "non-zero", "objective", "duality gap", "KKT", "PSNR", "active atoms"):
        assert name in printed.out
    with Pillow.open(out) as picture:
        assert picture.width > 1000
    assert cli.run([*arguments, "--json", "--image-size", "20"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert 0 < facts["nonzero"] < 1
    assert facts["stratum"] in range(3)


@pytest.mark.usefixtures("small")
def test_strata(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "strata"
    arguments = ["show", "strata", str(folder / "layer.stl"), "--data", "photographs", "--out", str(out)]
    arguments += ["--images", "8", "--epochs", "1", "--universal", str(folder / "universal.stl")]
    assert cli.run(arguments) == 0
    printed = capsys.readouterr()
    assert "DeepFool-0.03" in printed.out
    assert "train the vanilla classifier" in printed.err
    assert {path.name for path in out.iterdir()} == {"run.json", "steps", "strata.json", "strata.md", "strata.png"}
    first = (out / "strata.json").read_bytes()
    assert cli.run([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert "train" not in printed.err
    assert json.loads(printed.out) == json.loads(first)
    assert (out / "strata.json").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["filters", "layer.stl", "--out", "F.jpg"], 2, ["F.jpg", ".png"]),
        (["filters", "layer.stl", "--out", "F.png", "--root", "x"], 2, ["--root", "--data"]),
        (["filters", "layer.stl", "--out", "F.png", "--data", "cifar"], 2, ["cifar", "cifar10"]),
        (["filters", "layer.stl", "--out", "F.png", "--data", "photographs", "--images", "0"], 2, ["--images 0"]),
        (["filters", "none.stl", "--out", "F.png"], 1, ["none.stl", "missing"]),
        (["filters", "notes.txt", "--out", "F.png"], 1, ["notes.txt"]),
        (["codes", "layer.stl", "notes.txt", "--out", "F.png"], 1, ["notes.txt", "image"]),
        (["codes", "layer.stl", "image.png", "--out", "F.png", "--image-size", "3"], 1, ["smaller than the filters"]),
        (
            ["filters", "layer.stl", "universal.stl", "--out", "a.png", "--data", "photographs"],
            2,
            ["one layer", "--data"],
        ),
        (["codes", "layer.stl", "image.png"], 2, ["--out", "codes --help"]),
        (["strata", "universal.stl", "--out", "F"], 2, ["no strata", "with strata"]),
        (["strata", "layer.stl", "--out", "F", "--samples", "typcal"], 2, ["typcal", "typical"]),
        (["strata", "layer.stl", "--out", "F", "--network", "vgg17"], 2, ["vgg17", "vgg16"]),
        (["strata", "layer.stl", "--out", "F", "--colour"], 1, ["3 channels and the filters 1"]),
        (["strata", "layer.stl", "--out", ".", "--overwrite"], 2, ["layer.stl", "another --out"]),
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
    assert cli.run(["show", *arguments]) == status
    line = one_line(capsys)
    assert all(part in line for part in parts), line
    assert sorted(folder.iterdir()) == before


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("filters", "codes", "strata"):
        assert cli.run(["show", command, "--help"]) == 0
        assert f"quasinat show {command} LAYER.stl" in capsys.readouterr().out
