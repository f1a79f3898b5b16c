"""quasinat learn of what the other defences need, and project and train with it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data.tiny_cifar10 import tiny_cifar10
from experiments.test_projection import noise
from quasinat import cli
from quasinat.artefact import file_digest, read_card
from quasinat.data import cifar10
from quasinat.data.image_files import pixels, read_picture
from quasinat.data.shards import read_shard, shard_name
from quasinat.defences import (
    MedianFilter,
    Quilting,
    learn_magnet,
    load_magnet,
    load_patch_bank,
    load_patch_dictionary,
    load_pixelcnn,
)

COMMANDS: dict[str, list[str]] = {
    "magnet": ["--epochs", "2"],
    "patch-bank": ["--patches", "300"],
    "patch-dictionary": ["--size", "30", "--least-distance", "0.1"],
    "pixelcnn": ["--width", "4", "--blocks", "2", "--epochs", "1"],
}
LOAD: dict[str, Any] = {
    "magnet": load_magnet,
    "patch-bank": load_patch_bank,
    "patch-dictionary": load_patch_dictionary,
    "pixelcnn": load_pixelcnn,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A CIFAR-10 of fifty training images."""
    folder = tmp_path_factory.mktemp("cifar")
    with pytest.MonkeyPatch.context() as patch:
        tiny_cifar10(folder, patch)
        yield folder


def learn(what: str, root: Path, out: Path, *more: str) -> int:
    return cli.run(["learn", what, "--data", "cifar10", "--root", str(root), "--out", str(out), *COMMANDS[what], *more])


@pytest.mark.parametrize("what", COMMANDS)
def test_a_file_is_learned_with_its_card_and_not_twice(
    what: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "learned"
    assert learn(what, root, out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    made = read_card(out)["provenance"]
    assert (made["data"], made["images"]) == ("cifar10", 50)
    assert made[what.replace("-", "_")]["seed"] == 0
    assert LOAD[what](out).channels == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learned"]
    assert learn(what, root, out) == 2
    assert f"{out} exists" in capsys.readouterr().err
    first = file_digest(out)
    assert learn(what, root, out, "--overwrite") == 0
    assert file_digest(out) == first


def test_it_is_the_librarys_learning(root: Path, tmp_path: Path) -> None:
    assert learn("magnet", root, tmp_path / "m", "--seed", "3") == 0
    expected = learn_magnet(cifar10(root, "train")[0], epochs=2, seed=3).state_dict()
    for name, value in load_magnet(tmp_path / "m").state_dict().items():
        assert value.equal(expected[name]), name


def test_images_and_shards_go_through_a_defence(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, out = noise(tmp_path / "in" / "a.png", 1, (40, 36)), tmp_path / "out"
    command = ["project", str(tmp_path / "in"), str(out), "--defence", "median:size=3"]
    assert cli.run(command) == 0
    image = pixels(read_picture(picture))[None].float() / 255
    expected = (255 * MedianFilter(size=3)(image)).round().to(torch.uint8)
    assert pixels(read_picture(out / "a.png"))[None].equal(expected)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["defence"], manifest["settings"]) == ("median", [{"kind": "MedianFilter", "size": 3}])
    assert cli.run([*command[:-1], "median:size=2"]) == 2
    assert "projected with another settings" in capsys.readouterr().err

    assert learn("patch-bank", root, tmp_path / "bank") == 0
    shards = tmp_path / "shards"
    quilting = ["--defence", "quilting", "--artefact", str(tmp_path / "bank")]
    assert cli.run(["project", str(root), str(shards), "--split", "test", *quilting]) == 0
    expected = Quilting(load_patch_bank(tmp_path / "bank"))(cifar10(root, "test")[0])
    assert read_shard(shards / shard_name(0)).images.equal(expected)
    assert json.loads((shards / "manifest.json").read_text())["artefact"] == file_digest(tmp_path / "bank")


def test_a_classifier_is_trained_on_a_defences_images(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "on-jpeg"
    data = ["--data", "cifar10", "--root", str(root), "--epochs", "1", "--batch-size", "10", "--device", "cpu"]
    assert cli.run(["train", "retrained", "--defence", "jpeg:quality=50", "--out", str(out), *data]) == 0
    made = read_card(out)["provenance"]["transform"]
    assert made["defence"] == "jpeg"
    assert made["settings"][0]["quality"] == 50


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 2, "no transformation is named; pass --layer FILE, or --defence NAME"),
        (["--defence", "median", "--layer", "x"], 2, "--layer and --defence name two transformations"),
        (["--layer", "x", "--artefact", "y"], 2, "--artefact belongs to a defence"),
        (["--defence", "median", "--lambda", "0.1"], 2, "--lambda is the layer's"),
        (["--defence", "medain"], 2, "unknown defence 'medain'; did you mean 'median'"),
        (["--defence", "quilting"], 2, "quilting needs a patch bank"),
        (["--defence", "quilting", "--artefact", "nowhere"], 1, "nowhere is missing"),
        (["--defence", "resize-pad"], 2, "resize-pad makes images of (40, 44) pixels of (36, 40)"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    options: list[str], status: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(tmp_path / "in" / "a.png", 1, (40, 36))
    assert cli.run(["project", str(tmp_path / "in"), str(tmp_path / "out"), *options]) == status
    errors = capsys.readouterr().err.strip().splitlines()
    assert words in errors[-1]
