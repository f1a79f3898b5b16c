"""Somebody else's classifier: each source gives the network that it has, fed as the network wants."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from interop.others import exported
from layers import images_of, universal
from quasinat import Defended, Identity, Implicit
from quasinat.defended import LogitsOf
from quasinat.errors import InputError, UsageError
from quasinat.interop import OwnModel, classifier_named, own_model
from quasinat.interop.own_model import classes_of
from quasinat.networks import VGG, mobilenet, save_classifier, vgg

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def images() -> Tensor:
    return images_of(3, 3)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of Hugging Face as `save_pretrained` writes it, with what it wants of its images."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        num_labels=3,
        id2label={0: "tench, fish", 1: "dog", 2: "cat"},
    )
    path = tmp_path_factory.mktemp("hf")
    transformers.ResNetForImageClassification(config).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "size": {"shortest_edge": 32}}',
        encoding="utf-8",
    )
    return path


def test_images_are_normalised_and_brought_to_size(network: nn.Module, images: Tensor) -> None:
    model = OwnModel(network, mean=MEAN, deviation=DEVIATION, size=(14, 16))
    smaller = F.interpolate(images, (14, 16), mode="bilinear", antialias=True)
    wanted = (smaller - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    torch.testing.assert_close(model(images), network(wanted))


def test_images_of_the_size_are_left_as_they_are(network: nn.Module, images: Tensor) -> None:
    assert torch.equal(OwnModel(network, size=(20, 20))(images), network(images))


def test_the_channels_are_turned_round_before_they_are_normalised(network: nn.Module, images: Tensor) -> None:
    wanted = (images.flip(1) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    torch.testing.assert_close(OwnModel(network, mean=MEAN, deviation=DEVIATION, flipped=True)(images), network(wanted))


def test_a_file_of_ours_is_named_by_itself(tmp_path: Path) -> None:
    for name in ("small.safetensors", "small.net"):
        save_classifier(tmp_path / name, vgg("vgg-small", classes=4), {"provenance": {}})
        named = classifier_named(str(tmp_path / name))
        assert isinstance(named, VGG)
        assert named.card["settings"]["classes"] == 4
        assert own_model(str(tmp_path / name)).classes == 4
    with pytest.raises(InputError, match="is missing"):
        classifier_named("none.safetensors")


@pytest.mark.parametrize("answer", ["a", torch.zeros(1, 3, 4), torch.zeros(2, 3), torch.zeros(1, 3, dtype=torch.int64)])
def test_what_is_no_row_of_logits_is_refused(answer: Any, images: Tensor) -> None:
    class Other(nn.Module):
        def forward(self, images: Tensor) -> Any:
            return answer

    with pytest.raises(InputError, match="give one of logits"):
        classes_of(Other(), images)


@pytest.mark.parametrize("given", [{"deviation": (0.0,)}, {"deviation": (float("nan"),)}, {"mean": (float("inf"),)}])
def test_a_normalisation_that_makes_no_sense_is_refused(network: nn.Module, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="finite"):
        OwnModel(network, **given)


def test_an_exported_program_is_the_network(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = exported(network, tmp_path / "net.pt2")
    model = own_model(str(path), mean=MEAN)
    assert model.size == (20, 20)
    torch.testing.assert_close(model(images), network(images - torch.tensor(MEAN).view(3, 1, 1)))
    assert own_model(f"pt2:{path}").size == (20, 20)


def test_an_exported_program_behind_the_layer_has_the_true_gradient(
    network: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    layer = universal()
    gradients = []
    for classifier in (own_model(str(exported(network, tmp_path / "net.pt2"))), OwnModel(network)):
        leaf = images.clone().requires_grad_()
        Defended(layer, classifier).with_adjoint(Implicit()).train().eval()(leaf)[:, 0].sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert float(gradients[0].abs().max()) > 0
    torch.testing.assert_close(*gradients)


def test_a_program_of_a_fixed_number_of_images_is_refused(network: nn.Module, tmp_path: Path) -> None:
    path = exported(network, tmp_path / "two.pt2", dynamic=False)
    with pytest.raises(InputError, match="dynamic_shapes"):
        own_model(str(path))


def test_what_is_no_program_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "bad.pt2").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"bad\.pt2 holds no such program") as caught:
        own_model(str(tmp_path / "bad.pt2"))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="there is no file"):
        own_model(str(tmp_path / "none.pt2"))


def test_a_hugging_face_model_is_fed_as_it_wants(folder: Path, images: Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    model = own_model(f"hf:{folder}")
    assert model.size == (32, 32)
    assert model.labels == {0: "tench, fish", 1: "dog", 2: "cat"}
    larger = F.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    wanted = (larger - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(wanted).logits)


def test_weights_that_are_a_pickle_are_not_read(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n.")
    with pytest.raises(InputError, match="safetensors"):
        own_model(f"hf:{tmp_path}")


def test_the_output_of_any_classifier(folder: Path, images: Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval().requires_grad_(False)
    layer = universal()
    defended = Defended(layer, theirs, output=lambda answer: answer.logits)
    with torch.no_grad():
        torch.testing.assert_close(defended(images), theirs(layer(images)).logits)
    named = defended.with_adjoint(Identity())
    assert isinstance(named.classifier, LogitsOf)
    leaf = images.clone().requires_grad_()
    named(leaf)[:, 0].sum().backward()
    assert leaf.grad is not None
    assert float(leaf.grad.abs().max()) > 0


def test_torchvision_says_what_its_weights_want(
    monkeypatch: pytest.MonkeyPatch, network: nn.Module, images: Tensor
) -> None:
    """With a stand-in of its interface: torchvision itself has to fit the torch beside it."""
    asks = SimpleNamespace(crop_size=[24], mean=list(MEAN), std=list(DEVIATION))
    weights = SimpleNamespace(transforms=lambda: asks, meta={"categories": ["a", "b", "c", "d", "e"]})
    models = ModuleType("torchvision.models")
    models.list_models = lambda module: ["resnet50", "vgg16"]  # type: ignore[attr-defined]
    models.get_model_weights = lambda name: SimpleNamespace(DEFAULT=weights)  # type: ignore[attr-defined]
    models.get_model = lambda name, weights: network  # type: ignore[attr-defined]
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    model = own_model("torchvision:resnet50")
    assert (model.size, model.labels[4]) == ((24, 24), "e")
    torch.testing.assert_close(model.normalise.mean.flatten(), torch.tensor(MEAN))
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        own_model("torchvision:resnet5")


def test_a_torchvision_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UsageError, match="torchvision cannot be imported"):
        own_model("torchvision:resnet50")


def test_files_of_our_own(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, wide = vgg("vgg-small", classes=4).eval(), mobilenet(3).eval()
    save_classifier(tmp_path / "small.safetensors", small, {})
    big = F.interpolate(images, (32, 32))
    with torch.no_grad():
        torch.testing.assert_close(own_model(f"quasinat:{tmp_path / 'small.safetensors'}")(big), small(big))
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in wide.state_dict().items()}, tmp_path / "wide.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(own_model(f"mobilenet:{tmp_path / 'wide.safetensors'}")(big), wide(big))


@pytest.mark.parametrize("name", ["resnet50", "huggingface:x", "hf:", ""])
def test_an_unknown_source_names_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="pt2"):
        own_model(name)
