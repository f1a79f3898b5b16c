"""MobileNetV2: its size and cost as printed, its padding, its files; with the weights, its accuracy on real images."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from quasinat.data import load
from quasinat.defences.class_activation import class_activation_maps, robust_activation_map
from quasinat.errors import InputError
from quasinat.files import write_tensors
from quasinat.networks import load_mobilenet, mobilenet, of_classes, with_new_head
from quasinat.networks.mobilenet import SameConvolution


def test_it_has_the_layers_and_the_cost_of_the_paper() -> None:
    network = mobilenet().eval()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 52
    done: list[int] = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        weights = module.weight if isinstance(module, nn.Conv2d | nn.Linear) else torch.empty(0)
        done.append(weights[0].numel() * output.numel())

    for module in (*convolutions, network.classifier):
        module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.rand(1, 3, 224, 224))
    assert sum(done) == pytest.approx(300e6, rel=0.01)  # table 4: 300 M multiplications and additions
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert weights == pytest.approx(3.4e6, rel=0.03)  # the same table: 3.4 M parameters


@pytest.mark.parametrize("size", [(32, 32), (33, 40), (97, 64)])
def test_logits_of_any_size_each_image_on_its_own(size: tuple[int, int]) -> None:
    network = mobilenet(classes=7).eval()
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (3, 7)
        torch.testing.assert_close(network(images[1:2])[0], logits[1], rtol=1e-4, atol=1e-5)
        assert network.classifier(network.embed(images)).equal(logits)


@pytest.mark.parametrize(
    ("side", "stride", "frame"), [(8, 2, (0, 1, 0, 1)), (9, 2, (1, 1, 1, 1)), (8, 1, (1, 1, 1, 1))]
)
def test_the_padding_is_tensorflows(side: int, stride: int, frame: tuple[int, ...]) -> None:
    layer = SameConvolution(2, 4, 3, stride, relu=False)
    images = torch.rand(2, 2, side, side)
    padded = F.conv2d(F.pad(images, frame), layer.weight, layer.bias, stride)
    torch.testing.assert_close(layer(images), padded)
    assert padded.shape[2] == -(-side // stride)


def test_the_seed_decides() -> None:
    first, second, other = (mobilenet(3, seed=seed).stem.weight for seed in (0, 0, 1))
    assert first.equal(second)
    assert not first.equal(other)


def test_weights_travel_through_a_file_in_half_precision(tmp_path: Path) -> None:
    network, path = mobilenet(5, seed=3).eval(), tmp_path / "weights.safetensors"
    write_tensors(path, {name: value.half() for name, value in network.state_dict().items()}, {"source": "a test"})
    loaded = load_mobilenet(path)
    assert loaded.classes == 5
    assert not loaded.training
    assert loaded.card["source"] == "a test"
    for name, value in network.state_dict().items():
        assert loaded.state_dict()[name].equal(value.half().float()), name


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        load_mobilenet(path)
    write_tensors(path, {"something": torch.zeros(2)})
    with pytest.raises(InputError, match=r"holds no MobileNetV2 \(no classifier\.weight\)"):
        load_mobilenet(path)
    short = {name: value for name, value in mobilenet(3).state_dict().items() if name != "blocks.4.project.bias"}
    write_tensors(path, short)
    with pytest.raises(InputError, match=r"lacks the tensor blocks\.4\.project\.bias"):
        load_mobilenet(path)


def test_fewer_classes_have_the_logits_of_those_classes() -> None:
    network = mobilenet(9).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(of_classes(network, torch.tensor([7, 0, 4]))(images), network(images)[:, [7, 0, 4]])


def test_the_weights_classify_imagenet_as_well_as_they_are_known_to(real_data: Path, mobilenet_weights: Path) -> None:
    """68.7 % of the 1,000 images; of the 200 of these, a part of them, within three deviations of that."""
    network = load_mobilenet(mobilenet_weights)
    labels = [line.split(",") for line in (real_data / "imagenet-val" / "labels.csv").read_text().splitlines()[1:]]
    index = {name: int(number) for _, name, number, _ in labels}
    images = load("folder", real_data / "imagenet-val", size=224, convert="rgb", test_share=0.2)
    truth = torch.tensor([index[name] for name in images.classes])[images.test_labels]
    with torch.no_grad():
        found = torch.cat([network(batch).argmax(1) for batch in images.test_images.split(50)])
    accuracy = float((found == truth).float().mean())
    assert len(truth) == 200
    assert abs(accuracy - 0.687) < 3 * (0.687 * 0.313 / 200) ** 0.5


def test_a_new_head_says_nothing_yet_and_keeps_the_rest() -> None:
    whole = mobilenet(classes=20, seed=1).eval()
    headed = with_new_head(whole, 4)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert headed(images).equal(torch.zeros(2, 4))
        assert headed.embed(images).equal(whole.embed(images))
    assert headed.stem.weight is not whole.stem.weight


def test_its_class_activation_maps_average_to_its_logits() -> None:
    network = mobilenet(classes=6, seed=2).eval()
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    maps = class_activation_maps(network, images)
    assert maps.shape == (2, 6, 2, 3)
    with torch.no_grad():
        expected = network(images) - network.classifier.bias
    torch.testing.assert_close(maps.mean((2, 3)), expected, rtol=1e-4, atol=1e-5)
    assert robust_activation_map(network, images).shape == (2, 64, 96)
