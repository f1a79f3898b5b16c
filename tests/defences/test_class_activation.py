import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quasinat.defences.class_activation import class_activation_maps, ranking_weights, robust_activation_map
from quasinat.errors import UsageError
from quasinat.networks import VGG, vgg


def network_of(classes: int, channels: int = 3, seed: int = 4) -> VGG:
    """A small network in double precision whose normalisation and bias are not trivial."""
    network = vgg("vgg-small", classes=classes, channels=channels, seed=seed).double().eval()
    with torch.no_grad():
        network.normalise.mean.copy_(torch.linspace(0.2, 0.6, channels).view(-1, 1, 1))
        network.classifier.bias.copy_(torch.linspace(-1, 1, classes))
    return network


class Colours(nn.Module):
    """Class c is as likely as channel c is bright: the map of a class is its channel."""

    def __init__(self, channels: int, last: nn.Module | None = None) -> None:
        super().__init__()
        self.normalise = nn.Identity()
        self.features = nn.Sequential(nn.Identity(), last or nn.Identity())
        self.classifier = nn.Linear(channels, channels).double()
        nn.init.eye_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)


def recursion(maps: np.ndarray) -> np.ndarray:
    """The map of the authors' `generate_map.py`, of class maps from the least likely class on."""

    def scaled(values: np.ndarray) -> np.ndarray:
        return (values - values.min()) / (values.max() - values.min())

    total = None
    for values in maps:
        total = 1.2 * scaled(values) if total is None else (total + scaled(values)) / 2
    return scaled(total)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 33, 47)])
def test_the_mean_of_a_map_and_its_bias_are_the_logit(
    channels: int, height: int, width: int, generator: torch.Generator
) -> None:
    network = network_of(7, channels)
    images = torch.rand(3, channels, height, width, generator=generator, dtype=torch.float64)
    maps = class_activation_maps(network, images)
    assert maps.shape == (3, 7, height // 8, width // 8)
    assert torch.allclose(maps.mean((2, 3)) + network.classifier.bias, network(images), atol=1e-12)
    assert not torch.allclose(maps, maps.mean((2, 3), keepdim=True), atol=1e-3)


@pytest.mark.parametrize("before_pooling", [False, True])
@pytest.mark.parametrize(("classes", "wanted"), [(10, 5), (10, 3), (3, 5), (5, 5)])
def test_it_is_the_authors_recursion(
    classes: int, wanted: int, before_pooling: bool, generator: torch.Generator
) -> None:
    """Features by a hook, one number at a time; enlarged by scikit-image."""
    from skimage.transform import resize

    network = network_of(classes)
    images = torch.rand(3, 3, 40, 51, generator=generator, dtype=torch.float64)
    maps = robust_activation_map(network, images, classes=wanted, before_pooling=before_pooling)
    seen: list[Tensor] = []
    layer = network.features[-2 if before_pooling else -1]
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        logits = network(images)
    handle.remove()
    weight = network.classifier.weight.detach().numpy()
    for row in range(3):
        features = seen[0][row].numpy()
        rising = np.argsort(logits[row].numpy())[-wanted:]
        small = [sum(weight[c, k] * features[k] for k in range(len(features))) for c in rising]
        large = np.stack([resize(values, (40, 51), order=1, mode="edge", anti_aliasing=False) for values in small])
        assert torch.allclose(maps[row], torch.from_numpy(recursion(large)), atol=1e-10)
        assert maps[row].min() == 0
        assert maps[row].max() == 1


def test_the_weights() -> None:
    assert ranking_weights(5) == (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1.2 / 16)
    assert ranking_weights(2) == (1 / 2, 1.2 / 2)
    assert ranking_weights(1) == (1.2,)


def test_weights_of_ones_own_and_a_planted_object() -> None:
    images = torch.zeros(1, 3, 32, 36, dtype=torch.float64)
    images[:, 0, 4:20, 6:30] = 0.9  # the first class
    images[:, 1, 22:30, 0:8] = 0.6  # the second
    maps = robust_activation_map(Colours(3), images, classes=2, weights=(3.0, 1.0))
    expected = torch.zeros(1, 32, 36, dtype=torch.float64)
    expected[:, 4:20, 6:30], expected[:, 22:30, 0:8] = 1, 1 / 3
    assert torch.allclose(maps, expected, atol=1e-12)
    single = robust_activation_map(Colours(3), images, classes=1)
    assert torch.equal(single, (images[:, 0] > 0).double())


def test_a_map_that_says_nothing_is_zero(generator: torch.Generator) -> None:
    images = torch.rand(3, 3, 8, 8, generator=generator)
    cell = robust_activation_map(network_of(10).float(), images, before_pooling=False)  # the features have one cell
    assert torch.equal(cell, torch.zeros(3, 8, 8))
    even = torch.full((2, 3, 33, 45), 0.3)
    assert torch.equal(robust_activation_map(Colours(3).float(), even), torch.zeros(2, 33, 45))
    pooled = Colours(3, nn.AdaptiveAvgPool2d(1)).float()
    assert torch.equal(robust_activation_map(pooled, torch.rand(2, 3, 33, 45)), torch.zeros(2, 33, 45))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_map_does_not_depend_on_the_batch(channels: int, generator: torch.Generator) -> None:
    network = network_of(10, channels)
    images = torch.rand(4, channels, 37, 32, generator=generator, dtype=torch.float64)
    maps = robust_activation_map(network, images)
    for row in range(4):
        assert torch.allclose(robust_activation_map(network, images[row : row + 1])[0], maps[row], atol=1e-10)
    assert robust_activation_map(network, images[:0]).shape == (0, 37, 32)
    # In single precision too, of the network or of the images.
    single = robust_activation_map(network, images.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), maps, atol=1e-5)
    assert torch.allclose(robust_activation_map(network.float(), images), maps, atol=1e-3)


def test_the_network_is_left_as_it_was(generator: torch.Generator) -> None:
    network = network_of(10)
    images = torch.rand(4, 3, 32, 32, generator=generator, dtype=torch.float64)
    expected = robust_activation_map(network, images)
    network.train()
    network.features[0].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    assert torch.equal(robust_activation_map(network, images.requires_grad_()), expected)
    with pytest.raises(RuntimeError):
        class_activation_maps(network, images[:, :2])
    assert [module.training for module in network.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_it_refuses() -> None:
    images = torch.rand(1, 3, 32, 32)
    for network in (nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))):
        with pytest.raises(UsageError, match="no class activation maps"):
            robust_activation_map(network, images)
        with pytest.raises(UsageError, match="no class activation maps"):
            class_activation_maps(network, images)
    with pytest.raises(UsageError, match="classes is 0"):
        robust_activation_map(Colours(3), images, classes=0)
    with pytest.raises(UsageError, match="2 weights for 5 classes"):
        robust_activation_map(Colours(3), images, weights=(1.0, 0.5))
