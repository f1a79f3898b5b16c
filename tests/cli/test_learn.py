"""quasinat learn and info: parts make the same layer as the whole, and what cannot be done is one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.tiny_cifar10 import tiny_cifar10
from layers import dictionary_of
from quasinat import cli
from quasinat.artefact import read_artefact, read_card
from quasinat.layer import SparseTransformationLayer
from quasinat.strata import DenoisingAutoencoder, Strata, load_dictionaries, save_dictionaries
from sparse_coding.unchecked import unchecked

NETWORK = ["--width", "4", "--epochs", "2", "--noise", "0.1", "--seed", "3"]
STRATA = ["--strata", "2", "--neighbours", "3", "--components", "8", "--seed", "3"]
DICTIONARIES = ["--filters", "3", "--size", "4", "--lambda", "0.1", "--passes", "2", "--tolerance", "0", "--seed", "3"]
DICTIONARIES += ["--split", "mid-grey", "--constraint", "per-channel", "--zero-mean", "--images-each", "15"]
DICTIONARIES += ["--held-out", "2", "--learner", "online"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a CIFAR-10 of fifty training images."""
    tiny_cifar10(tmp_path / "data", monkeypatch)
    return ["--data", "cifar10", "--root", str(tmp_path / "data")]


def learn(part: str, out: Path, *arguments: object) -> int:
    return cli.run(["learn", part, "--out", str(out), *map(str, arguments)])


@pytest.fixture
def parts(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with an autoencoder, strata and dictionaries."""
    assert learn("autoencoder", tmp_path / "a", *data, *NETWORK) == 0
    assert learn("strata", tmp_path / "s", *data, *STRATA, "--autoencoder", tmp_path / "a") == 0
    assert learn("dictionaries", tmp_path / "d", *data, *DICTIONARIES, "--strata", tmp_path / "s") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in "asd"]
    return tmp_path


def tensors(path: Path) -> dict[str, Tensor]:
    return read_artefact(path, "layer")[0]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(value.equal(second[name]) for name, value in first.items())


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_parts_make_the_same_layer_as_the_whole(parts: Path, data: list[str]) -> None:
    files = ["--strata-file", parts / "s", "--dictionaries-file", parts / "d"]
    assert learn("layer", parts / "from-files", *data, *files) == 0
    assert learn("layer", parts / "from-strata", *data, *DICTIONARIES, "--strata-file", parts / "s") == 0
    assert learn("layer", parts / "whole", *data, *NETWORK, *STRATA, *DICTIONARIES) == 0
    whole, card = read_artefact(parts / "whole", "layer")
    assert same(tensors(parts / "from-files"), whole)
    assert same(tensors(parts / "from-strata"), whole)
    assert read_card(parts / "from-files") == read_card(parts / "from-strata") == card
    layer = SparseTransformationLayer.load(parts / "whole")
    assert (layer.sparsity, layer.split, layer.filters.shape) == (0.1, "mid-grey", (2, 3, 3, 4, 4))
    assert layer.dictionaries[0].constraint == "per-channel"
    assert layer.dictionaries[0].zero_mean
    assert (
        card["provenance"]["dictionaries"] | {"learner": "online", "seed": 3, "images_each": 15}
        == (card["provenance"]["dictionaries"])
    )
    assert card["provenance"]["autoencoder"] == {"noise": 0.1, "width": 4, "epochs": 2, "seed": 3}
    assert card["provenance"]["strata"] == {"count": 2, "neighbours": 3, "components": 8, "seed": 3}
    assert not list(parts.glob("*.learning"))


def test_another_seed_is_another_layer(parts: Path, data: list[str]) -> None:
    files = ["--strata-file", parts / "s"]
    assert learn("layer", parts / "first", *data, *DICTIONARIES, *files) == 0
    assert learn("layer", parts / "second", *data, *DICTIONARIES, "--seed", "4", *files) == 0
    assert not same(tensors(parts / "first"), tensors(parts / "second"))


def test_the_layers_own_options(parts: Path, data: list[str]) -> None:
    files = ["--strata-file", parts / "s", "--dictionaries-file", parts / "d"]
    assert learn("layer", parts / "l", *data, *files, "--normalise", "max", "--refine", "2") == 0
    layer = SparseTransformationLayer.load(parts / "l")
    assert (layer.normalise, layer.refine, layer.refine_over) == ("max", 2, "image")


def test_a_universal_layer(data: list[str], tmp_path: Path) -> None:
    assert learn("dictionaries", tmp_path / "d", *data, *DICTIONARIES) == 0
    assert learn("layer", tmp_path / "l", *data, "--universal", "--dictionaries-file", tmp_path / "d") == 0
    assert learn("layer", tmp_path / "whole", *data, "--universal", *DICTIONARIES) == 0
    assert same(tensors(tmp_path / "l"), tensors(tmp_path / "whole"))
    assert SparseTransformationLayer.load(tmp_path / "l").strata is None


def test_dictionaries_of_other_strata_are_refused(
    parts: Path, data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = [*data, *STRATA[:-1], "4", "--autoencoder", str(parts / "a")]
    assert learn("strata", parts / "s2", *other) == 0
    assert learn("dictionaries", parts / "u", *data, *DICTIONARIES) == 0
    save_dictionaries([dictionary_of(3, seed) for seed in range(2)], parts / "mine", {"provenance": {}})
    capsys.readouterr()
    elsewhere = ["--data", "cifar10", "--root", str(parts / "nowhere")]  # refused before any data is read
    for extra, message in (
        (["--strata-file", parts / "s2", "--dictionaries-file", parts / "d"], "d was learned with other strata; name"),
        (["--strata-file", parts / "s", "--dictionaries-file", parts / "u"], "u was learned with other strata"),
        (["--universal", "--dictionaries-file", parts / "d"], "d was learned with other strata"),
        (["--dictionaries-file", parts / "d"], "comes without its strata; name --strata-file, or pass --universal"),
        (["--dictionaries-file", parts / "u"], "comes without its strata"),
        (["--universal", "--strata-file", parts / "s"], "--universal has no strata; leave --strata-file out"),
    ):
        assert learn("layer", parts / "l", *elsewhere, *extra) == 2
        assert message in one_line(capsys)
    files = ["--strata-file", parts / "s", "--dictionaries-file", parts / "mine"]
    assert learn("layer", parts / "l", *elsewhere, *files) == 1
    assert "mine does not say how it was learned; pass one that `quasinat learn" in one_line(capsys)
    assert not (parts / "l").exists()


@pytest.mark.parametrize(
    ("part", "arguments", "status", "words"),
    [
        ("autoencoder", ["--width", "0"], 2, ["--width", "autoencoder --help"]),
        ("autoencoder", ["--epochs", "0"], 2, ["--epochs"]),
        ("autoencoder", ["--epochs", "many"], 2, ["--epochs", "autoencoder --help"]),
        ("autoencoder", ["--noise", "nan"], 1, ["no longer finite"]),
        ("autoencoder", ["--data", "cifar"], 2, ["cifar", "did you mean 'cifar10'"]),
        ("autoencoder", ["--data", "cifar10"], 2, ["name it with --root"]),
        ("autoencoder", ["--image-size", "32"], 2, ["no option 'size'"]),
        ("autoencoder", ["--root", "nowhere"], 1, ["nowhere", "quasinat data cifar10 --dest nowhere"]),
        ("strata", [], 2, ["--autoencoder"]),
        ("strata", ["--autoencoder", "nowhere"], 1, ["nowhere is missing"]),
        ("dictionaries", ["--strata", "nowhere"], 1, ["nowhere is missing"]),
        ("dictionaries", ["--split", "tikonov"], 2, ["unknown split", "did you mean 'tikhonov'"]),
        ("dictionaries", ["--constraint", "joined"], 2, ["unknown constraint", "did you mean 'joint'"]),
        ("dictionaries", ["--learner", "onlin"], 2, ["unknown learner", "did you mean 'online'"]),
        ("dictionaries", ["--lambda", "nan"], 2, ["nan is not a finite number"]),
        ("dictionaries", ["--lambda", "-1"], 2, ["-1.0 is not a finite number"]),
        ("dictionaries", ["--tolerance", "inf"], 2, ["tolerance inf is not a finite number"]),
        ("dictionaries", ["--filters", "513"], 2, ["--filters", "512"]),
        ("dictionaries", ["--size", "2"], 2, ["--size"]),
        ("dictionaries", ["--passes", "-1"], 2, ["--passes"]),
        ("dictionaries", ["--images-each", "0"], 2, ["--images-each"]),
        ("dictionaries", ["--held-out", "-3"], 2, ["--held-out"]),
        ("layer", ["--normalise", "mx"], 2, ["unknown normalise", "did you mean 'max'"]),
        ("layer", ["--refine", "-1"], 2, ["--refine"]),
        ("layer", ["--split", "tikonov"], 2, ["unknown split"]),
        ("layer", ["--learner", "onlin"], 2, ["unknown learner"]),
        ("layer", ["--strata", "0"], 2, ["--strata"]),
        ("layers", [], 2, ["layers", "--help"]),
    ],
)
def test_bad_usage_is_one_line_before_anything_is_learned(
    part: str,
    arguments: list[str],
    status: int,
    words: list[str],
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [] if "--data" in arguments else data
    with unchecked():
        assert learn(part, tmp_path / "out", *options, *arguments) == status
    line = one_line(capsys)
    assert line.startswith("quasinat: ")
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_kind_is_refused(parts: Path, data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert learn("strata", parts / "x", *data, "--autoencoder", parts / "s") == 1
    assert "s is a file of kind 'strata', not 'autoencoder'" in one_line(capsys)
    assert learn("dictionaries", parts / "x", *data, "--strata", parts / "d") == 1
    assert "d is a file of kind 'dictionaries', not 'strata'" in one_line(capsys)
    assert learn("layer", parts / "x", *data, "--strata-file", parts / "s", "--dictionaries-file", parts / "a") == 1
    assert "a is a file of kind 'autoencoder', not 'dictionaries'" in one_line(capsys)


def test_an_existing_file_is_refused_before_any_data_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    nowhere = ["--data", "cifar10", "--root", tmp_path / "nowhere"]
    for part in ("autoencoder", "dictionaries", "layer"):
        assert learn(part, out, *nowhere) == 2
        assert "out exists; choose another --out, or pass --overwrite" in one_line(capsys)
        assert learn(part, out, *nowhere, "--overwrite") == 1
        assert "nowhere" in one_line(capsys)
    assert out.read_text() == "mine"


def test_overwriting_learns_again(data: list[str], tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    assert learn("autoencoder", tmp_path / "a", *data, *NETWORK, "--overwrite") == 0
    assert read_card(tmp_path / "a")["provenance"]["images"] == 50


def test_after_ctrl_c_the_same_command_goes_on(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*data, *NETWORK, *STRATA, *DICTIONARIES]
    assert learn("layer", tmp_path / "whole", *command) == 0
    forward, calls = DenoisingAutoencoder.forward, 0

    def counted(self: DenoisingAutoencoder, images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return forward(self, images)

    monkeypatch.setattr(DenoisingAutoencoder, "forward", counted)
    capsys.readouterr()
    assert learn("layer", tmp_path / "l", *command) == 130
    captured = capsys.readouterr()
    assert captured.err.strip().splitlines()[-1] == "quasinat: interrupted; the same command continues where it can"
    assert {path.name for path in (tmp_path / "l.learning").iterdir()} == {"autoencoder.safetensors", "code.json"}
    assert learn("layer", tmp_path / "l", *command, "--noise", "0.2") == 2
    assert "(noise: 0.1, not 0.2); delete it" in capsys.readouterr().err.splitlines()[-1]
    assert learn("layer", tmp_path / "l", *command) == 0
    assert calls == 3  # two epochs, one of them begun twice
    assert (tmp_path / "l").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "l.learning").exists()


def test_info_prints_the_card_of_every_kind(parts: Path, data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--strata-file", parts / "s", "--dictionaries-file", parts / "d"]
    assert learn("layer", parts / "l", *data, *files) == 0
    capsys.readouterr()
    for name, kind, expected in (
        ("a", "autoencoder", {"settings.width": "4", "provenance.autoencoder.epochs": "2"}),
        ("s", "strata", {"settings.count": "2", "provenance.strata.neighbours": "3"}),
        ("d", "dictionaries", {"shape": "2, 3, 3, 4, 4", "dictionaries[1].zero_mean": "True"}),
        ("l", "layer", {"settings.split": "mid-grey", "settings.solver.name": "auto", "settings.strata.images": "50"}),
    ):
        assert cli.run(["info", str(parts / name)]) == 0
        lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
        printed = {line[0]: line[1] if len(line) > 1 else "" for line in lines}
        assert {"schema": "2", "kind": kind, "provenance.data": "cifar10"} | expected | printed == printed
        assert "versions.torch" in printed
        assert cli.run(["info", str(parts / name), "--json"]) == 0
        card: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert card == read_card(parts / name)
        assert card["provenance"]["fingerprint"] == printed["provenance.fingerprint"]


def test_info_shortens_a_long_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_dictionaries([dictionary_of(1)], tmp_path / "d", {"curve": [i / 3 for i in range(40)], "none": []})
    assert cli.run(["info", str(tmp_path / "d")]) == 0
    lines = {line.split()[0]: line.split(None, 1)[1:] for line in capsys.readouterr().out.splitlines()}
    first, last = "0, 0.333333, 0.666667, 1, 1.33333, 1.66667", "11.3333, 11.6667, 12, 12.3333, 12.6667, 13"
    assert lines["curve"] == [f"{first}, ... (40), {last}"]
    assert lines["none"] == []
    assert lines["dictionaries[0].curve"] == ["3, 2"]


def test_info_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("mine")
    for name, words in (("nowhere", "nowhere is missing"), ("notes", "notes is damaged")):
        assert cli.run(["info", str(tmp_path / name)]) == 1
        assert words in one_line(capsys)


def test_files_are_read_back_by_the_library(parts: Path) -> None:
    strata, (dictionaries, card) = Strata.load(parts / "s"), load_dictionaries(parts / "d")
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert strata(images).max() < 2
    assert len(dictionaries) == 2
    assert [len(each.curve) for each in dictionaries] == [2, 2]
    assert card["provenance"]["dictionaries"]["sparsity"] == 0.1


def test_the_help_of_every_part_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("autoencoder", "strata", "dictionaries", "layer"):
        assert cli.run(["learn", part, "--help"]) == 0
        assert f"quasinat learn {part} --" in " ".join(capsys.readouterr().out.split())
    assert cli.run(["learn"]) == 2
    assert "Ctrl-C loses at most one pass" in " ".join(capsys.readouterr().out.split())
