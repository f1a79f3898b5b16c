"""Thermometer encoding: its bits against a plain loop, what they tell, the named derivatives, a network built on it."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quasinat.attacks import Linf, pgd
from quasinat.errors import UsageError
from quasinat.networks import (
    Normalise,
    Thermometer,
    load_classifier,
    read_thermometer,
    save_classifier,
    thermometer,
    vgg,
    with_backward,
)
from quasinat.training import train_adversarially, train_classifier


def by_hand(images: Tensor, levels: int) -> Tensor:
    """The definition, bit by bit."""
    batch, channels, height, width = images.shape
    code = torch.zeros(batch, channels * levels, height, width, dtype=images.dtype)
    for b in range(batch):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    for k in range(1, levels + 1):
                        code[b, c * levels + k - 1, i, j] = float(images[b, c, i, j] > k / levels)
    return code


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("levels", [2, 10, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_are_those_of_the_definition(
    channels: int, levels: int, dtype: torch.dtype, generator: torch.Generator
) -> None:
    images = torch.rand(2, channels, 5, 4, generator=generator, dtype=dtype)
    images[0, 0, 0] = torch.tensor([0.0, 1.0, 0.5, 0.25], dtype=dtype)
    code = thermometer(images, levels)
    assert code.dtype == dtype
    assert code.equal(by_hand(images, levels))
    assert thermometer(images[1:], levels).equal(code[1:])
    assert thermometer(images[:0], levels).shape == (0, channels * levels, 5, 4)


def test_the_example_of_the_paper() -> None:
    """Athalye et al. 2018, section 5.1.1: of ten levels tau(0.66) = 1111110000."""
    code = thermometer(torch.full((1, 1, 1, 1), 0.66), 10)
    assert "".join(str(int(bit)) for bit in code.flatten()) == "1111110000"


@pytest.mark.parametrize("levels", [2, 7, 16, 256])
def test_it_decodes_to_the_quantised_level(levels: int) -> None:
    """All values of 8 bits: exact integer arithmetic decides in which interval (j, j + 1] / levels v / 255 lies."""
    images = (torch.arange(256, dtype=torch.float64) / 255).view(1, 1, 16, 16)
    expected = [(max(0, -(-value * levels // 255) - 1) + 0.5) / levels for value in range(256)]
    decoded = read_thermometer(thermometer(images, levels), levels)
    torch.testing.assert_close(decoded.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    assert float((decoded - images).abs().max()) <= 0.5 / levels + 1e-12


def relaxed(images: Tensor, levels: int) -> Tensor:
    """tau hat of Athalye et al. 2018, section 5.1.1, to be differentiated automatically."""
    each = [torch.clamp(images - k / levels, 0, 1) for k in range(1, levels + 1)]
    return torch.stack(each, 2).flatten(1, 2)


@pytest.mark.parametrize("levels", [3, 16])
def test_the_relaxation_is_differentiated(levels: int, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, 3 * levels, 6, 5, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad((weights * relaxed(images, levels)).sum(), images)
    code = thermometer(images, levels, backward="relaxation")
    (found,) = torch.autograd.grad((weights * code).sum(), images)
    torch.testing.assert_close(found, expected)
    assert code.detach().equal(by_hand(images.detach(), levels))


def test_the_other_derivatives(generator: torch.Generator) -> None:
    images = torch.rand(1, 2, 3, 3, generator=generator).requires_grad_()
    weights = torch.randn(1, 10, 3, 3, generator=generator)
    code = thermometer(images, 5, backward="straight-through")
    (found,) = torch.autograd.grad((weights * code).sum(), images)
    torch.testing.assert_close(found, torch.stack([weights[:, :5].sum(1), weights[:, 5:].sum(1)], 1))
    code = thermometer(images, 5, backward="none")
    (found,) = torch.autograd.grad((weights * code).sum(), images)
    assert found.equal(torch.zeros_like(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_on_the_code(channels: int, generator: torch.Generator) -> None:
    network = vgg("vgg-small", classes=4, channels=channels, encoding="thermometer", levels=6).eval()
    images = torch.rand(3, channels, 17, 24, generator=generator)
    assert network.channels == channels
    assert isinstance(network.normalise, Thermometer)
    assert not any(isinstance(module, Normalise) for module in network.modules())
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (3, 4)
        assert network.classifier(network.features(by_hand(images, 6)).mean((2, 3))).equal(logits)
        torch.testing.assert_close(network(images[1:2])[0], logits[1], rtol=1e-4, atol=1e-5)
        nudged = (read_thermometer(thermometer(images, 6), 6) + 0.4 / 6).clamp(0, 1)  # within the same levels
        assert network(nudged).equal(logits)


def test_another_derivative_of_the_same_network(generator: torch.Generator) -> None:
    network = vgg("vgg-small", classes=2, channels=1, encoding="thermometer").eval()
    images = torch.rand(2, 1, 16, 16, generator=generator).requires_grad_()
    other = with_backward(network, "none")
    assert other is not network
    assert {p.data_ptr() for p in other.parameters()} == {p.data_ptr() for p in network.parameters()}
    gradients = [torch.autograd.grad(each(images)[:, 0].sum(), images)[0] for each in (network, other)]
    assert float(gradients[0].abs().sum()) > 0
    assert float(gradients[1].abs().sum()) == 0
    with pytest.raises(UsageError, match="the VGG has no thermometer encoding"):
        with_backward(vgg("vgg-small", classes=2), "none")


@pytest.mark.parametrize("backward", ["smoothed", "nearest"])
def test_a_derivative_is_that_of_the_mean_over_uniform_noise(backward: str, generator: torch.Generator) -> None:
    """Against a difference quotient of the mean bit over a fine grid of u, abs(u) < 1/8 or half a level."""
    images = torch.rand(1, 1, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(1, 16, 3, 4, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((thermometer(images, backward=backward) * weights).sum(), images)
    (default,) = torch.autograd.grad((thermometer(images) * weights).sum(), images)
    assert default.equal(gradient) == (backward == "smoothed")
    reach = 1 / 8 if backward == "smoothed" else 1 / 32
    grid = ((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 - 0.5) * 2 * reach

    def mean_code(shift: float) -> Tensor:
        thresholds = torch.arange(1, 17, dtype=torch.float64) / 16
        moved = images.detach()[0, 0].flatten() + shift
        bits = moved[:, None, None] + grid > thresholds[:, None]
        return bits.double().mean(2).T.reshape(1, 16, 3, 4)

    quotient = ((mean_code(0.005) - mean_code(-0.005)) / 0.01 * weights).sum(1, keepdim=True)
    place = (images.detach() - reach) * 16  # a window's edge is on a threshold where this is whole
    from_an_edge = (place - place.round()).abs() / 16
    clear = (from_an_edge > 0.006).expand_as(gradient)
    torch.testing.assert_close(gradient[clear], quotient[clear], rtol=0, atol=0.1)
    assert int(clear.sum()) > 5


def squares(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Dark and bright images with noise, 0.2 apart."""
    labels = torch.arange(count) % 2
    noise = 0.1 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return (0.4 + 0.2 * labels[:, None, None, None] + noise).clamp(0, 1), labels


def attacked(network: torch.nn.Module, images: Tensor, labels: Tensor, *, seed: int, radius: float) -> Tensor:
    return pgd(network, images, labels, budget=Linf(radius), steps=3, seed=seed).images


def test_it_trains_with_and_without_perturbed_images_and_the_gradient_is_of_use(tmp_path: Path) -> None:
    images, labels = squares(96, 0)
    others, truth = squares(64, 1)
    options = {"epochs": 4, "batch_size": 16, "augment": False}
    plain = train_classifier(vgg("vgg-small", classes=2, channels=1, encoding="thermometer"), images, labels, **options)
    perturb = partial(attacked, radius=0.03)
    hardened = vgg("vgg-small", classes=2, channels=1, encoding="thermometer")
    train_adversarially(hardened, images, labels, perturb=perturb, **options)
    for network in (plain, hardened):
        with torch.no_grad():
            assert float((network(others).argmax(1) == truth).double().mean()) > 0.95
    strong = {"budget": Linf(0.15), "steps": 5}
    with torch.no_grad():
        hits = {
            backward: float(
                (plain(pgd(with_backward(plain, backward), others, truth, **strong).images).argmax(1) == truth)
                .double()
                .mean()
            )
            for backward in ("smoothed", "relaxation", "none")
        }
    assert hits["smoothed"] < 0.2
    assert hits["relaxation"] > 0.8  # that it looks robust along this one says nothing
    assert hits["none"] > 0.8  # nor along the true one, which is zero
    save_classifier(tmp_path / "file", hardened, {})
    with torch.no_grad():
        assert load_classifier(tmp_path / "file")(others).equal(hardened(others))


@pytest.mark.parametrize("levels", [-1, 1, 257])
def test_impossible_levels_are_refused(levels: int) -> None:
    for make in (
        partial(Thermometer, levels),
        partial(thermometer, torch.zeros(1, 1, 2, 2), levels),
        partial(vgg, "vgg-small", classes=2, encoding="thermometer", levels=levels),
    ):
        with pytest.raises(UsageError, match=f"a thermometer of {levels} levels makes no sense; give 2 to 256"):
            make()


def test_an_unknown_derivative_or_encoding_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown derivative 'relaxed' of the encoding; did you mean 'relaxation'"):
        Thermometer(backward="relaxed")
    with pytest.raises(UsageError, match=r"unknown encoding 'thermometre'; did you mean 'thermometer'"):
        vgg("vgg-small", classes=2, encoding="thermometre")
