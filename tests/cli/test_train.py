"""quasinat train: each kind is the training that it says, interrupted or not; what cannot be done is one line."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.tiny_cifar10 import tiny_cifar10, write_batch
from layers import stratified, universal
from quasinat import cli
from quasinat.artefact import file_digest, read_artefact, read_card, write_artefact
from quasinat.attacks import Dissimilarity, Linf, pgd
from quasinat.data import cifar10
from quasinat.defences import train_on_fgsm
from quasinat.experiments.train_settings import KINDS
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import VGG, load_classifier, vgg
from quasinat.training import train_adversarially, train_classifier
from quasinat.training.checkpoint import digest
from sparse_coding.unchecked import unchecked

FIT: dict[str, Any] = {"epochs": 2, "batch_size": 10, "learning_rate": 0.01, "seed": 3}
OPTIONS = ["--epochs", "2", "--batch-size", "10", "--learning-rate", "0.01", "--seed", "3", "--device", "cpu"]
ATTACK = ["--budget", "linf:4/255", "--steps", "2", "--share", "0.5"]
RADIUS = 4 / 255


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The options of a CIFAR-10 of fifty training images."""
    root = tmp_path_factory.mktemp("cifar")
    with pytest.MonkeyPatch.context() as patch:
        tiny_cifar10(root, patch)
        yield ["--data", "cifar10", "--root", str(root)]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer.stl"
    stratified().save(path)
    return path


def train(kind: str, out: Path, *arguments: object) -> int:
    return cli.run(["train", kind, "--out", str(out), *map(str, arguments)])


def new() -> VGG:
    return vgg("vgg-small", classes=10, channels=3, seed=3)


def same(path: Path, network: VGG) -> bool:
    theirs, ours = load_classifier(path).state_dict(), network.state_dict()
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def training_half(data: list[str]) -> tuple[Tensor, Tensor]:
    images, labels, *_ = cifar10(data[-1], "train")
    return images, labels


def test_vanilla_is_plain_training(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "v.safetensors"
    assert train("vanilla", out, *data, *OPTIONS) == 0
    printed = capsys.readouterr().out
    images, labels = training_half(data)
    losses: list[float] = []
    expected = train_classifier(new(), images, labels, **FIT, on_epoch=lambda _, loss: losses.append(loss))
    assert same(out, expected)
    test_images, test_labels, *_ = cifar10(data[-1], "test")
    with torch.no_grad():
        right = int((expected(test_images).argmax(1) == test_labels).sum())
    card = read_card(out)
    made = card["provenance"]
    assert (made["test"]["value"], made["test"]["n"]) == (right / 10, 10)
    assert f"test accuracy  {10 * right:.1f} % [" in printed
    assert printed.splitlines()[-1].split() == ["file", str(out)]
    assert made["losses"] == losses
    assert (made["data"], made["images"], made["fingerprint"]) == ("cifar10", 50, digest(images))
    assert (made["transform"], made["device"], made["settings"]["seed"]) == (None, "cpu", 3)
    assert made["settings"] | {"kind": "vanilla", "epochs": 2, "learning_rate": 0.01} == made["settings"]
    plain = {"kind", "data", "image_size", "colour", "convert", "train_per_class", "network", "epochs", "batch_size"}
    assert made["settings"].keys() == plain | {"learning_rate", "noise", "seed"}
    assert {"torch", "code", "platform"} <= made.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.safetensors"]


def test_adversarial_is_training_on_what_pgd_makes(data: list[str], tmp_path: Path) -> None:
    assert train("adversarial", tmp_path / "a", *data, *OPTIONS, *ATTACK) == 0
    images, labels = training_half(data)

    def perturb(network: torch.nn.Module, batch: Tensor, truth: Tensor, *, seed: int) -> Tensor:
        return pgd(network, batch, truth, budget=Linf(RADIUS), steps=2, seed=seed).images

    assert same(tmp_path / "a", train_adversarially(new(), images, labels, perturb=perturb, share=0.5, **FIT))
    settings = read_card(tmp_path / "a")["provenance"]["settings"]
    assert settings | {"kind": "adversarial", "budget": "linf:4/255", "steps": 2, "share": 0.5} == settings


def test_retrained_learns_exactly_t_of_the_training_images(
    data: list[str], layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    assert train("retrained", out, *data, *OPTIONS, "--layer", layer, "--json") == 0
    images, labels = training_half(data)
    transform = SparseTransformationLayer.load(layer)
    expected = train_classifier(new(), transform(images), labels, **FIT)
    assert same(out, expected)
    test_images, test_labels, *_ = cifar10(data[-1], "test")
    with torch.no_grad():
        right = (expected(transform(test_images)).argmax(1) == test_labels).double().mean()
    report = json.loads(capsys.readouterr().out)
    assert report["test"]["value"] == float(right)
    assert report | {"file": str(out), "kind": "retrained", "device": "cpu"} == report
    assert report["losses"] == read_card(out)["provenance"]["losses"]
    assert len(report["losses"]) == 2
    assert read_card(out)["provenance"]["transform"]["layer"] == file_digest(layer)
    assert read_card(out)["provenance"]["images"] == 50


def test_noise_comes_before_the_network_and_before_the_layer(
    data: list[str], layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("vanilla", tmp_path / "v", *data, *OPTIONS, "--noise", "0.1") == 0
    images, labels = training_half(data)
    assert same(tmp_path / "v", train_classifier(new(), images, labels, noise=0.1, **FIT))
    seen: list[Tensor] = []
    project = SparseTransformationLayer.project

    def watched(self: SparseTransformationLayer, batch: Tensor) -> Tensor:
        seen.append(batch)
        return project(self, batch)

    monkeypatch.setattr(SparseTransformationLayer, "project", watched)
    assert train("retrained", tmp_path / "r", *data, *OPTIONS, "--layer", layer, "--noise", "0.1", "--copies", "2") == 0
    first, second, test = seen
    middle = (images > 0.35) & (images < 0.65)  # where nothing is clipped
    for copy in (first, second):
        assert float(copy.min()) >= 0
        assert float(copy.max()) <= 1
        noise = (copy - images)[middle]
        assert abs(float(noise.std()) / 0.1 - 1) < 0.05
        assert abs(float(noise.mean())) < 0.005
    correlation = torch.corrcoef(torch.stack([(first - images)[middle], (second - images)[middle]]))[0, 1]
    assert abs(float(correlation)) < 0.05
    assert test.equal(cifar10(data[-1], "test")[0])  # the test images are clean
    transform = SparseTransformationLayer.load(layer)
    projected = torch.cat([project(transform, first), project(transform, second)])
    assert same(tmp_path / "r", train_classifier(new(), projected, labels.repeat(2), **FIT))


def test_no_test_image_has_a_part_in_the_weights(data: list[str], layer: Path, tmp_path: Path) -> None:
    kinds: dict[str, list[object]] = {"vanilla": [], "retrained": ["--layer", layer], "adversarial": list(ATTACK)}
    other = shutil.copytree(data[-1], tmp_path / "other")
    write_batch(other, "test_batch", torch.randint(256, (10, 3, 32, 32), dtype=torch.uint8))
    for kind, extra in kinds.items():
        assert train(kind, tmp_path / f"{kind}-1", *data, *OPTIONS, *extra) == 0
        assert train(kind, tmp_path / f"{kind}-2", *data[:-1], other, *OPTIONS, *extra) == 0
        assert same(tmp_path / f"{kind}-1", load_classifier(tmp_path / f"{kind}-2"))


def test_fgsm_of_a_thermometer_is_trained_and_said(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f"
    encoded = ["--encoding", "thermometer", "--levels", "8"]
    assert train("fgsm", out, *data, *OPTIONS, "--budget", "dissimilarity:0.05", *encoded, "--json") == 0
    network = vgg("vgg-small", classes=10, channels=3, seed=3, encoding="thermometer", levels=8)
    assert same(out, train_on_fgsm(network, *training_half(data), budget=Dissimilarity(0.05), share=0.5, **FIT))
    assert load_classifier(out).options == {"encoding": "thermometer", "levels": 8}
    settings = read_card(out)["provenance"]["settings"]
    used = {"kind": "fgsm", "budget": "dissimilarity:0.05", "share": 0.5, "encoding": "thermometer", "levels": 8}
    assert settings | used == settings
    report = json.loads(capsys.readouterr().out)
    assert report | {"file": str(out), "kind": "fgsm"} == report


def test_distilled_prints_both_trainings_losses(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("distilled", tmp_path / "d", *data, *OPTIONS, "--temperature", "20", "--json") == 0
    report, made = json.loads(capsys.readouterr().out), read_card(tmp_path / "d")["provenance"]
    for name in ("losses", "teacher_losses"):
        assert len(report[name]) == 2
        assert report[name] == made[name]


def test_a_part_of_the_training_images(data: list[str], tmp_path: Path) -> None:
    assert train("vanilla", tmp_path / "v", *data, *OPTIONS, "--train-per-class", "2") == 0
    made = read_card(tmp_path / "v")["provenance"]
    assert (made["images"], made["test"]["n"]) == (20, 10)


@pytest.mark.parametrize(
    ("kind", "stop_at", "state", "left"),
    [
        ("vanilla", 7, "training", 5 + 1),  # in the second epoch of five batches: the epoch again, and the end
        ("retrained", 7, "training", 5 + 1),
        ("adversarial", 7, "training", 5 + 1),
        ("distilled", 7, "teacher", 5 + 1 + 10 + 1),  # then the student
        ("distilled", 10 + 1 + 7, "student", 1 + 5 + 1),  # the teacher is read, and ends
    ],
)
def test_after_ctrl_c_the_same_command_goes_on(
    kind: str,
    stop_at: int,
    state: str,
    left: int,
    data: list[str],
    layer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kinds: dict[str, list[object]] = {"retrained": ["--layer", layer], "adversarial": list(ATTACK)}
    command: list[object] = [*data, *OPTIONS, *kinds.get(kind, [])]
    out = tmp_path / "out"
    assert train(kind, tmp_path / "whole", *command) == 0
    zero_grad, calls = torch.optim.Optimizer.zero_grad, 0

    def counted(self: torch.optim.Optimizer, set_to_none: bool = True) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        zero_grad(self, set_to_none)

    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", counted)
    capsys.readouterr()
    assert train(kind, out, *command) == 130
    captured = capsys.readouterr()
    assert captured.err.strip().splitlines()[-1] == "quasinat: interrupted; the same command continues where it can"
    assert (tmp_path / "out.training" / "steps" / f"{state}.safetensors").is_file()
    assert not out.exists()
    assert train(kind, out, *command, "--seed", "4") == 2
    assert "out.training holds a run of other settings or code; choose" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(SparseTransformationLayer, "_transform", _only_test_images)
    assert train(kind, out, *command) == 0
    assert calls == stop_at + left
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "out.training").exists()


_transform = SparseTransformationLayer._transform


def _only_test_images(self: SparseTransformationLayer, images: Tensor, coding: Any) -> Tensor:
    assert len(images) == 10, "the training images were projected before the interruption"
    return _transform(self, images, coding)


def test_an_interrupted_projection_goes_on(
    data: list[str], layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quasinat.experiments.train.CHUNK", 20)
    command: list[object] = [*data, *OPTIONS, "--layer", layer]
    out = tmp_path / "out"
    done: list[int] = []

    def counted(self: SparseTransformationLayer, images: Tensor, coding: Any) -> Tensor:
        if len(done) == 2:
            done.clear()
            raise KeyboardInterrupt
        done.append(len(images))
        return _transform(self, images, coding)

    with monkeypatch.context() as patch:
        patch.setattr(SparseTransformationLayer, "_transform", counted)
        assert train("retrained", out, *command) == 130
        assert train("retrained", out, *command) == 0
        assert done == [10, 10]  # the last ten of fifty, and the test images
    images, labels = training_half(data)
    transform = SparseTransformationLayer.load(layer)
    expected = torch.cat([transform(part) for part in images.split(20)])
    assert same(out, train_classifier(new(), expected, labels, **FIT))


def test_an_existing_file_is_refused_before_any_data_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    nowhere = ["--data", "cifar10", "--root", tmp_path / "nowhere"]
    assert train("vanilla", out, *nowhere) == 2
    assert "out exists; choose another --out, or pass --overwrite" in one_line(capsys)
    assert train("vanilla", out, *nowhere, "--overwrite") == 1
    assert "nowhere" in one_line(capsys)
    assert out.read_text() == "mine"
    assert train("vanilla", tmp_path, *nowhere, "--overwrite") == 2
    assert "is a folder; choose another --out" in one_line(capsys)


def test_overwriting_trains_again(data: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert train("vanilla", tmp_path / "out", *data, *OPTIONS, "--overwrite") == 0
    first = (tmp_path / "out").read_bytes()
    assert train("vanilla", tmp_path / "out", *data, *OPTIONS, "--overwrite") == 0
    assert (tmp_path / "out").read_bytes() == first
    assert train("vanilla", tmp_path / "out", *data, *OPTIONS, "--seed", "4", "--overwrite") == 0
    assert read_artefact(tmp_path / "out", "classifier")[1]["provenance"]["settings"]["seed"] == 4
    assert (tmp_path / "out").read_bytes() != first


@pytest.mark.parametrize(
    ("kind", "arguments", "status", "words"),
    [
        ("vanila", [], 2, ["there is no training 'vanila'; did you mean 'vanilla'"]),
        ("retrained", [], 2, ["the training 'retrained' needs a transformation; name one with --layer or"]),
        ("retrained", ["--layer", "nowhere"], 1, ["nowhere is missing"]),
        ("vanilla", ["--layer", "nowhere"], 2, ["--layer is no option of the training 'vanilla'; leave it out, or"]),
        ("vanilla", ["--budget", "linf:0.1"], 2, ["--budget is no option of the training 'vanilla'", "adversarial"]),
        ("vanilla", ["--steps", "3"], 2, ["--steps is no option of the training 'vanilla'"]),
        ("vanilla", ["--share", "0.5"], 2, ["--share is no option of the training 'vanilla'"]),
        ("adversarial", ["--copies", "2", "--noise", "0.1"], 2, ["--copies is no option", "or train retrained"]),
        ("retrained", ["--copies", "2", "--defence", "median"], 2, ["--copies 2 would all be equal; give a --noise"]),
        ("retrained", ["--copies", "0"], 2, ["--copies 0 is too small; give at least 1"]),
        ("adversarial", ["--budget", "lnf:0.1"], 2, ["unknown budget 'lnf'", "did you mean 'linf'"]),
        ("adversarial", ["--budget", "linf"], 2, ["'linf' is no budget; write one such as linf:8/255"]),
        ("fgsm", ["--steps", "3"], 2, ["--steps is no option of the training 'fgsm'", "train adversarial or trades"]),
        ("fgsm", ["--layer", "nowhere"], 2, ["--layer is no option of the training 'fgsm'; leave it out, or"]),
        ("trades", ["--share", "0.5"], 2, ["--share is no option of the training 'trades'", "adversarial or fgsm"]),
        ("trades", ["--encoding", "thermometer"], 2, ["--encoding is no option of the training 'trades'"]),
        ("trades", ["--budget", "l2:0.5"], 2, ["--budget l2:0.5 is no radius of the training 'trades'", "linf:8/255"]),
        ("trades", ["--budget", "linf:inf"], 2, ["--budget linf:inf is no radius"]),
        ("trades", ["--beta", "-1"], 2, ["--beta -1.0 is not a finite number >= 0; 6 is usual"]),
        ("trades", ["--steps", "0"], 2, ["--steps 0 is too small; give at least 1"]),
        ("saturating", ["--temperature", "20"], 2, ["--temperature is no option", "leave it out, or train distilled"]),
        ("saturating", ["--penalty", "nan"], 2, ["--penalty nan is not a finite number >= 0; 3 is usual"]),
        ("distilled", ["--penalty", "1"], 2, ["--penalty is no option", "leave it out, or train saturating"]),
        ("distilled", ["--temperature", "0"], 2, ["--temperature 0.0 is not a finite number above zero; 100 is"]),
        ("vanilla", ["--beta", "1"], 2, ["--beta is no option of the training 'vanilla'; leave it out, or train tra"]),
        ("vanilla", ["--encoding", "termometer"], 2, ["unknown --encoding 'termometer'; did you mean 'thermometer'"]),
        ("vanilla", ["--levels", "8"], 2, ["--levels is of the thermometer; leave it out, or give --encoding"]),
        ("fgsm", ["--encoding", "thermometer", "--levels", "1"], 2, ["--levels 1 is not in [2, 256]; 16 is usual"]),
        ("adversarial", ["--steps", "0"], 2, ["--steps 0 is too small; give at least 1"]),
        ("adversarial", ["--share", "1.5"], 2, ["--share 1.5 is not in [0, 1]"]),
        ("vanilla", ["--noise", "nan"], 2, ["--noise nan is not a finite number >= 0"]),
        ("vanilla", ["--noise", "-0.1"], 2, ["--noise -0.1 is not a finite number >= 0"]),
        ("vanilla", ["--learning-rate", "0"], 2, ["--learning-rate 0.0 is not above zero"]),
        ("vanilla", ["--batch-size", "1"], 2, ["--batch-size 1 is too small; give at least 2"]),
        ("vanilla", ["--epochs", "0"], 2, ["--epochs 0 is not above zero"]),
        ("vanilla", ["--epochs", "many"], 2, ["--epochs", "train --help"]),
        ("vanilla", ["--seed", "-1"], 2, ["--seed -1 is below zero"]),
        ("vanilla", ["--train-per-class", "0"], 2, ["--train-per-class 0 is not above zero"]),
        ("vanilla", ["--train-per-class", "6"], 1, ["5 training images, not 6; ask for at most 5"]),
        ("vanilla", ["--network", "vgg"], 2, ["unknown --network 'vgg'", "vgg-small"]),
        ("vanilla", ["--device", "gpu"], 2, ["unknown --device 'gpu'", "cuda"]),
        ("vanilla", ["--image-size", "48"], 2, ["--image-size is no option of the image set 'cifar10'"]),
        ("vanilla", ["--data", "cifar"], 2, ["unknown --data 'cifar'; did you mean 'cifar10'"]),
        ("vanilla", ["--data", "cifar10"], 2, ["name it with --root"]),
    ],
)
def test_bad_usage_is_one_line_before_anything_is_trained(
    kind: str,
    arguments: list[str],
    status: int,
    words: list[str],
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [] if "--data" in arguments else data
    with unchecked():
        assert train(kind, tmp_path / "out", *options, *arguments) == status
    line = one_line(capsys)
    assert line.startswith("quasinat: ")
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("vanilla", tmp_path / "out", *data, "--device", "cuda") == 2
    assert "--device cuda: there is no CUDA device; pass --device cpu, or auto" in one_line(capsys)


def test_a_layer_that_cannot_be_used_is_refused(
    data: list[str], layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    universal(channels=1).save(tmp_path / "grey.stl")
    assert train("retrained", tmp_path / "out", *data, "--layer", tmp_path / "grey.stl") == 1
    assert "the images have 3 channels and the filters 1; convert the images, or pass a layer" in one_line(capsys)
    write_artefact(tmp_path / "strata", "strata", {"a": torch.zeros(1)}, {})
    assert train("retrained", tmp_path / "out", *data, "--layer", tmp_path / "strata") == 1
    assert "strata is a file of kind 'strata', not 'layer'" in one_line(capsys)
    assert train("retrained", layer, *data, "--layer", layer, "--overwrite") == 2
    assert "layer.stl is the layer; choose another --out" in one_line(capsys)
    inside = tmp_path / "out.training" / "layer.stl"
    inside.parent.mkdir()
    inside.write_bytes(layer.read_bytes())
    assert train("retrained", tmp_path / "out", *data, "--layer", inside, "--overwrite") == 2
    assert "out.training, which will be removed; choose another --out" in one_line(capsys)
    assert inside.is_file()


def test_images_too_small_for_the_network_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image as Pillow

    for half in ("train", "test"):
        for name in "ab":
            folder = tmp_path / "images" / half / name
            folder.mkdir(parents=True)
            for number in range(2):
                Pillow.new("RGB", (16, 16), (100 + number, 50, 20)).save(folder / f"{number}.png")
    options = ["--data", "folder", "--root", tmp_path / "images", "--image-size", "16"]
    assert train("vanilla", tmp_path / "out", *options, "--network", "vgg16") == 1
    assert "images of 16 pixels are too small for vgg16, which needs 32; choose larger" in one_line(capsys)
    assert train("vanilla", tmp_path / "out", *options, "--epochs", "1") == 0


def test_the_help_has_an_example_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for kind in KINDS:
        assert f"quasinat train {kind} --" in printed
    assert f"{', '.join(KINDS[:-1])} or {KINDS[-1]}" in " ".join(printed.replace("│", " ").split())
