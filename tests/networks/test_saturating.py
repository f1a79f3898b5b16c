"""Saturating units: the activation, the distance from saturation by search, the penalty and the share by hand."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quasinat.errors import InputError, UsageError
from quasinat.networks import (
    SaturatedLinear,
    distance_from_saturation,
    load_classifier,
    saturation_penalty,
    save_classifier,
    unsaturated,
    vgg,
)


def test_the_activation_and_its_derivative() -> None:
    inputs = torch.tensor([[-3.0, -0.1, 0.2, 0.9, 1.1, 7.0]], requires_grad=True)
    output = SaturatedLinear()(inputs)
    assert output.detach().equal(torch.tensor([[0.0, 0.0, 0.2, 0.9, 1.0, 1.0]]))
    (slope,) = torch.autograd.grad(output.sum(), inputs)
    assert slope.equal(torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]]))


def test_the_distance_is_to_the_nearest_point_without_a_derivative() -> None:
    """Against a search over a grid for the points where the activation's numerical derivative is zero."""
    grid = torch.linspace(-2, 3, 5001, dtype=torch.float64)
    step = 1e-6
    activation = SaturatedLinear()
    slope = (activation(grid[None] + step) - activation(grid[None] - step))[0] / (2 * step)
    flat = grid[slope.abs() < 1e-9]
    inputs = torch.linspace(-1.5, 2.5, 401, dtype=torch.float64)
    expected = (inputs[:, None] - flat).abs().amin(1)
    found = distance_from_saturation(inputs[None])[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=2.1e-3)  # the grid's spacing, twice
    assert float(found.max()) == pytest.approx(0.5)


def toy() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 3, 3), SaturatedLinear(), nn.Conv2d(3, 4, 3), SaturatedLinear(), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(4 * 16, 5))


def by_hand(network: nn.Module, images: Tensor) -> tuple[float, float]:
    """The penalty and the share of unsaturated units, from loops over the units' inputs."""
    first = network[0](images)  # type: ignore[index]
    second = network[2](first.clamp(0, 1))  # type: ignore[index]
    penalty, linear, total = 0.0, 0, 0
    for inputs in (first, second):
        values = inputs.flatten().tolist()
        within = [value for value in values if 0 < value < 1]
        penalty += sum(min(value, 1 - value) for value in within) / len(values)
        linear, total = linear + len(within), total + len(values)
    return penalty, linear / total


def test_the_penalty_and_the_share_of_a_network(generator: torch.Generator) -> None:
    network, images = toy(), torch.rand(7, 2, 8, 8, generator=generator)
    with torch.no_grad():
        penalty, share = by_hand(network, images)
        logits, found = saturation_penalty(network, images)
        assert logits.equal(network(images))
    assert 0.05 < penalty < 1
    assert float(found) == pytest.approx(penalty, rel=1e-5)
    assert unsaturated(network, images) == pytest.approx(share)
    assert unsaturated(network, images, batch_size=3) == pytest.approx(share)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_the_penalty_is_differentiated(generator: torch.Generator) -> None:
    network, images = toy().double(), torch.rand(2, 2, 8, 8, generator=generator, dtype=torch.float64)
    weight = network[0].weight  # type: ignore[index]
    (gradient,) = torch.autograd.grad(saturation_penalty(network, images)[1], weight)
    direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-6 * direction)
            values.append(float(saturation_penalty(network, images)[1]))
            weight.sub_(sign * 1e-6 * direction)
    assert float((gradient * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


def test_hooks_are_gone_after_an_error() -> None:
    network = toy()
    with pytest.raises(RuntimeError):
        saturation_penalty(network, torch.zeros(1, 3, 8, 8))
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("plan", ["vgg-small", "vgg16"])
def test_a_network_of_saturating_units_is_bounded_and_has_the_plain_ones_weights(plan: str) -> None:
    """But for its normalisations' scale and shift, which put the units where they are linear."""
    plain, network = vgg(plan, classes=3, seed=4), vgg(plan, classes=3, seed=4, activation="saturating")
    assert plain.options == {}
    assert network.options == {"activation": "saturating"}
    assert plain.state_dict().keys() == network.state_dict().keys()
    scaled = {
        id(value) for module in network.modules() if isinstance(module, nn.BatchNorm2d) for value in module.parameters()
    }
    for name, value in network.named_parameters():
        assert (id(value) in scaled) != bool(value.equal(plain.get_parameter(name))), name
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    images = torch.rand(4, 3, 32, 35, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert 0.55 < unsaturated(network.train(), images) < 0.7  # of a normal number: 0.62
        features = network.eval().embed(images)
    assert float(features.min()) >= 0
    assert 0 < float(features.max()) <= 1


def test_the_gradient_neither_grows_nor_fades_over_thirteen_layers() -> None:
    """Relative to the weights; the first layer, with one input channel, has a size of its own."""
    network = vgg("vgg16", classes=2, channels=1, activation="saturating").train()
    images = torch.rand(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(network(images), torch.arange(16) % 2).backward()
    convolutions = [module for module in network.features if isinstance(module, nn.Conv2d)]
    sizes = [float((module.weight.grad.norm() * module.weight.norm()).detach()) for module in convolutions[1:]]
    assert max(sizes) < 3 * min(sizes)


def test_it_comes_back_from_a_file(tmp_path: Path, generator: torch.Generator) -> None:
    network = vgg("vgg-small", classes=3, activation="saturating").eval()
    save_classifier(tmp_path / "file", network, {})
    loaded, images = load_classifier(tmp_path / "file"), torch.rand(2, 3, 16, 16, generator=generator)
    with torch.no_grad():
        assert loaded(images).equal(network(images))
        assert not loaded(images).equal(vgg("vgg-small", classes=3).eval()(images))


def test_what_is_refused() -> None:
    plain, images = vgg("vgg-small", classes=2), torch.zeros(1, 3, 16, 16)
    for ask in (saturation_penalty, unsaturated):
        with pytest.raises(UsageError, match="the VGG has no saturating units; build it with activation='saturating'"):
            ask(plain, images)
    with pytest.raises(InputError, match="no images"):
        unsaturated(toy(), images[:0])
    with pytest.raises(UsageError, match=r"unknown activation 'saturated'; did you mean 'saturating'"):
        vgg("vgg-small", classes=2, activation="saturated")
