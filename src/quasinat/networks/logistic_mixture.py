"""The density of one pixel's 8-bit channels: a mixture of discretised logistics, channel conditioned on channel.

(Salimans et al. 2017, "PixelCNN++", sections 2.1 and 2.2.) With x_c in [-1, 1] the scaled level of channel c,

    p(x) = sum_k pi_k prod_c P_k(x_c | x_1 .. x_{c-1}),
    P_k(x_c | ...) = sigmoid((x_c + 1/255 - m) / s) - sigmoid((x_c - 1/255 - m) / s),
    m = mean_kc + sum_{b < c} a_kcb x_b,

the first level taking all mass below it and the last all above, so that the 256 levels' probabilities sum to one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LEVELS = 256
LEAST_LOG_SCALE, MOST_LOG_SCALE = -7.0, 3.0  # beyond the most, mass would lie outside what stands for infinity
_BEYOND = 1e4  # stands for infinity, whose derivative is no number
Mass = Float[Tensor, "..."]


class Mixture(NamedTuple):
    """Of any number of pixels `...`: log pi `... K`, means and log s `... K C`, couplings a `... K C C`, below the
    diagonal."""

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    couplings: Tensor


def parameter_count(channels: int) -> int:
    """How many numbers one logistic of the mixture has."""
    return 1 + 2 * channels + channels * (channels - 1) // 2


def mixture_from(parameters: Float[Tensor, "... parameters"], channels: int) -> Mixture:
    """The mixture of each pixel from a network's outputs; couplings are bounded by tanh."""
    count = parameter_count(channels)
    each = parameters.unflatten(-1, (parameters.shape[-1] // count, count))
    weights, means, log_scales, free = each.split([1, channels, channels, count - 1 - 2 * channels], -1)
    couplings = each.new_zeros(*each.shape[:-1], channels, channels)
    rows, columns = torch.tril_indices(channels, channels, -1, device=each.device)
    couplings[..., rows, columns] = free.tanh()
    return Mixture(weights[..., 0].log_softmax(-1), means, log_scales.clamp(LEAST_LOG_SCALE, MOST_LOG_SCALE), couplings)


def scaled(levels: Tensor) -> Tensor:
    """Levels 0 to 255 as values in [-1, 1]."""
    return levels * (2 / (LEVELS - 1)) - 1


def log_mass(mixture: Mixture, channel: int, levels: Tensor, earlier: Tensor) -> Mass:
    """log P_k of some levels of one channel, given the levels of the channels before it.

    Args:
        levels: `... L`, L candidates of each pixel.
        earlier: `... channel`, the levels of the channels before.

    Returns:
        `... K L`.
    """
    shift = (mixture.couplings[..., channel, :channel] * scaled(earlier)[..., None, :]).sum(-1)
    mean = (mixture.means[..., channel] + shift)[..., None]
    inverse = (-mixture.log_scales[..., channel]).exp()[..., None]
    middle = scaled(levels)[..., None, :]
    half = 1 / (LEVELS - 1)
    low = torch.where(levels[..., None, :] <= 0, middle - _BEYOND, middle - half)
    high = torch.where(levels[..., None, :] >= LEVELS - 1, middle + _BEYOND, middle + half)
    return log_difference((low - mean) * inverse, (high - mean) * inverse)


def log_difference(low: Tensor, high: Tensor) -> Tensor:
    """log(sigmoid(high) - sigmoid(low)), low < high, exact in either tail."""
    flip = low + high > 0  # sigmoid(high) - sigmoid(low) = sigmoid(-low) - sigmoid(-high)
    upper, lower = torch.where(flip, -low, high), torch.where(flip, -high, low)
    log_upper = F.logsigmoid(upper)
    gap = (log_upper - F.logsigmoid(lower)).clamp_min(torch.finfo(low.dtype).tiny)
    return log_upper + (-torch.expm1(-gap)).log()


def joint_log_probability(mixture: Mixture, levels: Float[Tensor, "... channels"]) -> Float[Tensor, "..."]:
    """log p(x) of each pixel's channels together, in nats."""
    running = mixture.log_weights
    for channel in range(levels.shape[-1]):
        own = levels[..., channel : channel + 1]
        running = running + log_mass(mixture, channel, own, levels[..., :channel])[..., 0]
    return running.logsumexp(-1)


def conditional_log_probabilities(
    mixture: Mixture, channel: int, earlier: Float[Tensor, "... earlier"]
) -> Float[Tensor, "... levels"]:
    """log p(x_c = level | x_1 .. x_{c-1}) of every one of the 256 levels, in nats.

    Args:
        channel: c, from 0.
        earlier: the levels of the channels before.
    """
    running = mixture.log_weights
    for before in range(channel):
        own = earlier[..., before : before + 1]
        running = running + log_mass(mixture, before, own, earlier[..., :before])[..., 0]
    weights = running.log_softmax(-1)  # the mixture's weights once the earlier channels are known
    every = torch.arange(LEVELS, dtype=weights.dtype, device=weights.device).expand(*weights.shape[:-1], LEVELS)
    return (weights[..., None] + log_mass(mixture, channel, every, earlier)).logsumexp(-2)
