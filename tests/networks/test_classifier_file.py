"""A classifier as a file of its own: it comes back equal to the bit; anything else is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quasinat.artefact import read_artefact, write_artefact
from quasinat.cli import run
from quasinat.errors import InputError, UsageError
from quasinat.networks import VGG, MobileNetV2, load_classifier, mobilenet, save_classifier, vgg

PROVENANCE = {"data": "photographs", "seed": 4, "losses": [2.5, 1.25]}


def network_with_a_past() -> VGG:
    """A network whose batch statistics, mean and deviation are no longer those of a new one."""
    network = vgg("vgg-small", classes=5, channels=3, seed=2)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    network.normalise.fit(images)
    network.train()
    network(images)
    return network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "classifier.safetensors"
    save_classifier(path, network_with_a_past(), PROVENANCE)
    return path


def test_a_classifier_comes_back_equal(path: Path) -> None:
    ours, theirs = network_with_a_past(), load_classifier(str(path))
    assert (theirs.plan, theirs.classes, theirs.channels) == ("vgg-small", 5, 3)
    assert not any(module.training for module in theirs.modules())
    assert set(theirs.state_dict()) == set(ours.state_dict())
    for name, value in ours.state_dict().items():
        assert theirs.state_dict()[name].equal(value), name
        assert theirs.state_dict()[name].stride() == value.stride(), name
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert theirs(images).equal(ours.eval()(images))
    assert theirs.card["provenance"] == PROVENANCE
    assert theirs.card["settings"] == {"network": "vgg-small", "classes": 5, "channels": 3}
    content = path.read_bytes()
    save_classifier(path, theirs, PROVENANCE)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ({}, {}),
        ({"activation": "relu", "encoding": "none", "levels": 5}, {}),
        ({"activation": "saturating"}, {"activation": "saturating"}),
        ({"encoding": "thermometer"}, {"encoding": "thermometer", "levels": 16}),
        (
            {"encoding": "thermometer", "levels": 5, "activation": "saturating"},
            {"activation": "saturating", "encoding": "thermometer", "levels": 5},
        ),
    ],
)
def test_options_are_kept_where_they_differ_from_a_plain_network(
    options: dict[str, Any], written: dict[str, Any], tmp_path: Path
) -> None:
    network = vgg("vgg-small", classes=2, channels=1, seed=3, **options).eval()
    save_classifier(tmp_path / "file", network, {})
    loaded = load_classifier(tmp_path / "file")
    assert loaded.card["settings"] == {"network": "vgg-small", "classes": 2, "channels": 1, **written}
    assert loaded.options == network.options == written
    assert [str(module) for module in loaded.modules()] == [str(module) for module in network.modules()]
    images = torch.rand(2, 1, 16, 17, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert loaded(images).equal(network(images))


def test_the_global_generator_is_left_alone(path: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load_classifier(path)
    assert torch.random.get_rng_state().equal(before)


def test_info_prints_the_card(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(path), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["kind"], card["provenance"]) == ("classifier", PROVENANCE)
    assert run(["info", str(path)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["settings.network"] == "vgg-small"
    assert lines["provenance.losses"] == "2.5, 1.25"


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load_classifier(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"classifier.bias": None}, "lacks the tensor classifier.bias"),
        ({"classifier.bias": torch.zeros(4)}, r"holds classifier.bias of shape \(4,\), its card says \(5,\)"),
        ({"more": torch.zeros(1)}, "holds an unknown tensor more"),
        ({"classifier.bias": torch.zeros(5).double()}, "holds classifier.bias as torch.float64, not torch.float32"),
    ],
)
def test_tensors_that_do_not_fit_the_card_are_refused(
    path: Path, tensors: dict[str, Tensor | None], problem: str
) -> None:
    whole, card = read_artefact(path, "classifier")
    changed = {name: value for name, value in {**whole, **tensors}.items() if value is not None}
    write_artefact(path, "classifier", changed, card)
    refused(path, problem)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (None, "is of an unknown network None; train one of: vgg-small, vgg16"),
        ({"network": "vgg17"}, "is of an unknown network 'vgg17'"),
        ({"network": ["vgg16"]}, "is of an unknown network"),
        ({"network": "vgg16"}, r"holds features.0.weight of shape \(16, 3, 3, 3\), its card says \(64, 3, 3, 3\)"),
        ({"classes": 4}, r"holds classifier.weight of shape \(5, 64\), its card says \(4, 64\)"),
        ({"classes": True}, r"has no usable setting 'classes' \(True\); train it again"),
        ({"classes": 10**12}, "has no usable setting 'classes'"),
        ({"channels": "3"}, "has no usable setting 'channels'"),
        ({"channels": 0}, "has no usable setting 'channels'"),
        ({"activation": "relux"}, r"has no usable setting 'activation' \('relux'\); train it again"),
        ({"activation": ["relu"]}, "has no usable setting 'activation'"),
        ({"encoding": None}, "has no usable setting 'encoding'"),
        ({"encoding": "thermometer"}, r"lacks|unknown tensor normalise|holds features.0.weight of shape"),
        ({"encoding": "thermometer", "levels": 1}, "has no usable setting 'levels'"),
        ({"encoding": "thermometer", "levels": 257}, "has no usable setting 'levels'"),
        ({"encoding": "thermometer", "levels": 16.0}, "has no usable setting 'levels'"),
    ],
)
def test_a_card_that_is_wrong_is_refused(path: Path, settings: dict[str, Any] | None, problem: str) -> None:
    tensors, card = read_artefact(path, "classifier")
    write_artefact(
        path, "classifier", tensors, card | {"settings": None if settings is None else card["settings"] | settings}
    )
    refused(path, problem)


def test_another_file_is_refused(path: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is missing")
    content = path.read_bytes()
    for length in (0, 100, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "is damaged")
    write_artefact(path, "strata", {"filters": torch.zeros(1)}, {})
    refused(path, "is a file of kind 'strata', not 'classifier'")


def test_a_network_that_the_file_could_not_give_back_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds .* as torch.float64; convert it with network.float\(\)"):
        save_classifier(tmp_path / "double", vgg("vgg-small", classes=2).double(), {})
    assert not list(tmp_path.iterdir())


def test_a_mobilenet_comes_back_equal_and_says_so(tmp_path: Path) -> None:
    ours, path = mobilenet(classes=3, seed=4), tmp_path / "mobilenet.safetensors"
    save_classifier(path, ours, PROVENANCE)
    theirs = load_classifier(path)
    assert isinstance(theirs, MobileNetV2)
    assert theirs.card["settings"] == {"network": "mobilenet", "classes": 3, "channels": 3}
    images = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert theirs(images).equal(ours.eval()(images))
    tensors, card = read_artefact(path, "classifier")
    write_artefact(path, "classifier", tensors, {**card, "settings": {**card["settings"], "classes": 4}})
    with pytest.raises(InputError, match=r"classifier\.weight"):
        load_classifier(path)
