"""The command `evaluate`: what it prints, what it writes, and how it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.test_white_box import SMALLEST, data_for, quick_checks
from layers import stratified, universal
from quasinat import cli
from quasinat.data import Dataset
from quasinat.experiments import strata_report
from quasinat.experiments.white_box_settings import PRESETS
from quasinat.networks import save_classifier, vgg
from quasinat.report.white_box_sheet import white_box_markdown
from sparse_coding.unchecked import unchecked

NETWORKS = ("retrained", "vanilla", "robust")


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Eight images that the retrained network reads right behind the layer."""
    return data_for(universal(1), vgg("vgg-small", classes=3, channels=1).eval())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, data: Dataset) -> Iterator[None]:
    """The image set and the preset are cut to a size that takes little time; one thread."""
    quick_checks(monkeypatch)
    monkeypatch.setattr(strata_report, "image_set", lambda settings: data)
    monkeypatch.setitem(PRESETS, "smoke", SMALLEST)
    monkeypatch.setenv("COLUMNS", "160")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds two layers, three classifiers, others that do not fit, and a file that is none."""
    folder = tmp_path_factory.mktemp("evaluate")
    universal(1).save(folder / "layer.stl")
    stratified(3).save(folder / "colour.stl")
    for seed, name in enumerate(NETWORKS):
        save_classifier(folder / f"{name}.safetensors", vgg("vgg-small", classes=3, channels=1, seed=seed), {})
    save_classifier(folder / "ten.safetensors", vgg("vgg-small", classes=10, channels=1), {})
    save_classifier(folder / "colour.safetensors", vgg("vgg-small", classes=3, channels=3), {})
    (folder / "notes.txt").write_text("no classifier")
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("quasinat: ")
    return lines[0]


def command(folder: Path, out: Path, *more: str) -> list[str]:
    files = {"layer": "layer.stl", "classifier": "retrained.safetensors", "base": "vanilla.safetensors"}
    files["adversarial"] = "robust.safetensors"
    given = [part for option, name in files.items() for part in (f"--{option}", str(folder / name))]
    return ["evaluate", *given, "--out", str(out), "--preset", "smoke", "--device", "cpu", *more]


def test_evaluate(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "white-box"
    more = ("--images", "3", "--steps", "1", "--budget", "linf:2/255", "--budget", "LINF:8/255")
    assert cli.run(command(folder, out, *more)) == 0
    printed = capsys.readouterr()
    assert "attack: implicit-linf:8/255" in printed.err
    for part in ("Linf\n", "8/255", "Active span", "worst case of all of these", "finite differences"):
        assert part.strip() in printed.out
    assert "Routing (the layer has no strata)" in " ".join(printed.out.split())
    names = {"run.json", "steps", "white-box.json", "white-box.md", "outcomes.npz"}
    names |= {"worst-linf-2-255.safetensors", "worst-linf-8-255.safetensors"}
    assert {path.name for path in out.iterdir()} == names
    first = {name: (out / name).read_bytes() for name in names - {"steps"}}
    assert cli.run([*command(folder, out, *more), "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result == json.loads(first["white-box.json"])
    assert {name: (out / name).read_bytes() for name in names - {"steps"}} == first
    assert first["white-box.md"].decode() == white_box_markdown(result)
    assert (result["settings"]["images"], result["settings"]["steps"], result["data"]["n"]) == (3, 1, 3)
    assert result["settings"]["budgets"] == ["linf:2/255", "linf:8/255"]
    models = result["models"]
    assert [models[name]["file"] for name in ("layer", "classifier", "base", "adversarial")] == [
        "layer.stl",
        *(f"{name}.safetensors" for name in NETWORKS),
    ]
    assert models["layer"]["shape"] == [1, 8, 1, 5, 5]
    assert str(folder) not in first["white-box.json"].decode()
    with np.load(out / "outcomes.npz", allow_pickle=False) as stored:
        assert stored["worst-case/linf:8/255"].shape == (3,)


def test_shares_print_nothing_and_come_together(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for i in (1, 2):
        assert cli.run(command(folder, out, "--shard", f"{i}/2")) == 0
        assert capsys.readouterr().out == ""
        assert {path.name for path in out.iterdir()} == {"run.json", "steps"}
    assert cli.run(command(folder, out)) == 0
    assert "worst case of all of these" in capsys.readouterr().out


def test_a_withheld_headline_is_no_error_but_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = ["evaluate", "--layer", str(folder / "layer.stl"), "--classifier", str(folder / "retrained.safetensors")]
    assert cli.run([*bare, "--out", str(tmp_path / "out"), "--preset", "smoke", "--attack", "implicit"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The headline figure is withheld." in printed
    assert "no base and no adversarial model was given" in printed
    result = json.loads((tmp_path / "out" / "white-box.json").read_text())
    assert result["headline"] is None
    assert result["models"]["base"] is None
    assert [row["key"] for row in result["rows"] if not row["missing"]] == ["implicit"]
    assert "withheld" in (tmp_path / "out" / "white-box.md").read_text()


GIVEN = ["--layer", "layer.stl", "--classifier", "retrained.safetensors", "--preset", "smoke"]


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        ([*GIVEN, "--out", "F", "--threat", "whitebox"], 2, ["whitebox", "white-box"]),
        ([*GIVEN, "--out", "F", "--preset", "smal"], 2, ["'smal'", "'small'"]),
        ([*GIVEN, "--out", "F", "--images", "0"], 2, ["--images 0", "1 or more"]),
        ([*GIVEN, "--out", "F", "--steps", "0"], 2, ["--steps 0", "1 or more"]),
        ([*GIVEN, "--out", "F", "--restarts", "-1"], 2, ["--restarts -1"]),
        ([*GIVEN, "--out", "F", "--budget", "linf:inf"], 2, ["zero or infinity", "finite"]),
        ([*GIVEN, "--out", "F", "--budget", "l2:0.5"], 2, ["L-infinity", "linf:4/255"]),
        ([*GIVEN, "--out", "F", "--budget", "linf:1/255", "--budget", "Linf:1/255"], 2, ["given twice"]),
        ([*GIVEN, "--out", "F", "--budget", "lnf:1/255"], 2, ["'lnf'", "'linf'"]),
        ([*GIVEN, "--out", "F", "--attack", "implict"], 2, ["'implict'", "'implicit'"]),
        ([*GIVEN, "--out", "F", "--clipping", "exakt"], 2, ["'exakt'", "'exact'"]),
        ([*GIVEN, "--out", "F", "--shard", "5/4"], 2, ["--shard 5/4", "1/4"]),
        ([*GIVEN, "--out", "F", "--shard", "0/4"], 2, ["--shard 0/4"]),
        ([*GIVEN, "--out", "F", "--shard", "half"], 2, ["--shard half"]),
        ([*GIVEN, "--out", "F", "--device", "cdua"], 2, ["cdua", "cuda"]),
        ([*GIVEN, "--out", "F", "--data", "cifar"], 2, ["cifar", "cifar10"]),
        ([*GIVEN, "--out", "F", "--seed", "-1"], 2, ["seed -1"]),
        ([*GIVEN, "--out", ".", "--overwrite"], 2, ["layer.stl", "another --out"]),
        ([*GIVEN, "--out", "F", "--base", "ten.safetensors"], 2, ["--base has 10 classes", "3"]),
        ([*GIVEN, "--out", "F", "--adversarial", "colour.safetensors"], 2, ["--adversarial has 3 channels", "1"]),
        ([*GIVEN[2:], "--layer", "colour.stl", "--out", "F"], 1, ["1 channels and the filters 3"]),
        ([*GIVEN[2:], "--layer", "retrained.safetensors", "--out", "F"], 1, ["'classifier'", "'layer'"]),
        ([*GIVEN[:2], "--classifier", "notes.txt", "--out", "F"], 1, ["notes.txt"]),
        ([*GIVEN, "--out", "F", "--base", "none.safetensors"], 1, ["none.safetensors", "missing"]),
        ([*GIVEN], 2, ["--out", "evaluate --help"]),
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
    with unchecked():
        assert cli.run(["evaluate", *arguments]) == status
    line = one_line(capsys)
    assert all(part in line for part in parts), line
    assert sorted(folder.iterdir()) == before


def test_the_folder_of_another_run_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.run(command(folder, out, "--attack", "noise", "--shard", "1/9")) == 0
    capsys.readouterr()
    assert cli.run(command(folder, out, "--attack", "noise", "--seed", "1")) == 2
    assert "--overwrite" in one_line(capsys)


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "--help"]) == 0
    assert "quasinat evaluate --layer" in capsys.readouterr().out
