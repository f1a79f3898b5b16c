"""The PixelCNN's causality, pixel by pixel, and its conditionals: they sum to one and multiply to the likelihood."""

import math

import pytest
import torch
from torch import Tensor

from quasinat.networks.logistic_mixture import (
    LEVELS,
    conditional_log_probabilities,
    joint_log_probability,
    log_difference,
    mixture_from,
    parameter_count,
)
from quasinat.networks.pixelcnn import PixelCNN

every_channels = pytest.mark.parametrize("channels", [1, 3])


def network(channels: int, blocks: int = 3) -> PixelCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return PixelCNN(channels, width=6, blocks=blocks, mixtures=3).double().eval()


def picture(channels: int, height: int = 6, width: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(LEVELS, (1, channels, height, width), generator=generator)
    return levels.double() / (LEVELS - 1)


@every_channels
def test_no_pixel_sees_itself_or_a_later_one_and_each_sees_those_before(channels: int) -> None:
    model, image = network(channels), picture(channels)
    _, _, height, width = image.shape
    with torch.no_grad():
        before = model(image)
        for place in range(height * width):
            row, column = divmod(place, width)
            for channel in range(channels):
                other = image.clone()
                other[0, channel, row, column] = 1 - other[0, channel, row, column]
                changed = (model(other) != before)[0].any(0).flatten()
                assert not changed[: place + 1].any(), (row, column, channel)
                # Right of it, and in the rows below wherever it is within reach, every pixel notices: no blind spot.
                seen = changed.view(height, width)
                assert seen[row, column + 1 : column + 4].all()
                if row + 1 < height:
                    assert seen[row + 1, max(0, column - 2) : column + 3].all()


@every_channels
def test_a_channel_is_conditioned_on_those_before_it_alone(channels: int) -> None:
    generator = torch.Generator().manual_seed(4)
    mixture = mixture_from(torch.randn(5, 4 * parameter_count(channels), generator=generator).double(), channels)
    mixture.log_scales[0] = mixture_from(torch.full((1, 4 * parameter_count(channels)), 50.0), channels).log_scales[0]
    levels = torch.randint(LEVELS, (5, channels), generator=generator).double()
    total = torch.zeros(5, dtype=torch.float64)
    for channel in range(channels):
        table = conditional_log_probabilities(mixture, channel, levels[:, :channel])
        torch.testing.assert_close(table.exp().sum(1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)
        total += table.gather(1, levels[:, channel : channel + 1].long())[:, 0]
        if channel:
            moved = levels[:, :channel].clone()
            moved[:, 0] = 255 - moved[:, 0]
            assert not conditional_log_probabilities(mixture, channel, moved).allclose(table)
    torch.testing.assert_close(joint_log_probability(mixture, levels), total)


def test_the_joint_density_of_two_channels_sums_to_one_over_every_pair_of_levels() -> None:
    mixture = mixture_from(
        torch.randn(1, 2 * parameter_count(2), generator=torch.Generator().manual_seed(5)).double(), 2
    )
    pairs = torch.cartesian_prod(torch.arange(LEVELS), torch.arange(LEVELS)).double()
    wide = type(mixture)(*(part.expand(len(pairs), *part.shape[1:]) for part in mixture))
    assert float(joint_log_probability(wide, pairs).exp().sum()) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("low", [-60.0, -20.0, -1.0, -0.05, 0.0, 3.0, 20.0, 60.0])
def test_the_mass_of_a_bin_is_exact_far_out_in_the_tails(low: float) -> None:
    high = low + 0.1
    found = float(log_difference(torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)))
    # sigmoid(high) - sigmoid(low) = sinh(d / 2) / (2 cosh(low / 2) cosh(high / 2)), d = high - low
    expected = math.log(math.sinh(0.05)) - math.log(2) - math.log(math.cosh(low / 2)) - math.log(math.cosh(high / 2))
    assert found == pytest.approx(expected, rel=1e-10)


def test_the_derivative_of_the_likelihood_is_finite_at_every_level() -> None:
    levels = torch.tensor([0.0, 1.0, 128.0, 254.0, 255.0])[:, None]
    parameters = torch.randn(5, 2 * parameter_count(1), generator=torch.Generator().manual_seed(6))
    parameters[:, [2, 5]] = -9.0  # scales below the least
    parameters.requires_grad_()
    joint_log_probability(mixture_from(parameters, 1), levels).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


@every_channels
def test_the_likelihood_is_the_sum_of_the_conditionals(channels: int) -> None:
    model, image = network(channels), picture(channels)
    with torch.no_grad():
        mixture = mixture_from(model(image).permute(0, 2, 3, 1), channels)
        levels = (255 * image).round().permute(0, 2, 3, 1)
        total = sum(
            conditional_log_probabilities(mixture, c, levels[..., :c]).gather(3, levels[..., c : c + 1].long()).sum()
            for c in range(channels)
        )
        assert float(model.log_likelihood(image)) == pytest.approx(float(total) / math.log(2), rel=1e-10)


def test_images_are_seen_one_by_one_and_in_8_bits() -> None:
    model = network(3)
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    with torch.no_grad():
        together = model.log_likelihood(images)
        for i in range(4):
            torch.testing.assert_close(model.log_likelihood(images[i : i + 1])[0], together[i])
        torch.testing.assert_close(model.log_likelihood((255 * images).round() / 255), together)
