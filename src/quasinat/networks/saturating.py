"""Bounded activations, and how far a network's units are from saturation (Nayebi & Ganguli 2017)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images, Logits
from quasinat.errors import InputError, UsageError

Units = Float[Tensor, "batch ..."]
Value = Float[Tensor, ""]


class SaturatedLinear(nn.Module):
    """min(max(z, 0), 1): linear between two saturated regions, in which its derivative is zero.

    The saturated-linear function of Goroshin & LeCun (2013, "Saturating auto-encoders"). What differs from Nayebi &
    Ganguli (2017), and why: they use the ReLU, which is saturated on one side and unbounded on the other, and the
    sigmoid, which nears its bounds and never reaches them; here a unit is either saturated, to the bit, or not.
    """

    def forward(self, inputs: Units) -> Units:
        return inputs.clamp(0, 1)


def distance_from_saturation(inputs: Units) -> Units:
    """psi_c(z): how far each input of a `SaturatedLinear` is from the nearest point where its derivative is zero.

    psi_c(z) = inf over z' with psi'(z') = 0 of |z - z'|, the complementary function of Goroshin & LeCun (2013) and
    Nayebi & Ganguli (2017); here min(z, 1 - z) from 0 to 1, and 0 elsewhere.

    Args:
        inputs: z, of any shape.

    Examples:
        >>> import torch
        >>> from quasinat.networks import distance_from_saturation
        >>> distance_from_saturation(torch.tensor([-1.0, 0.25, 0.9, 2.0])).round(decimals=2)
        tensor([0.0000, 0.2500, 0.1000, 0.0000])
    """
    return torch.minimum(inputs, 1 - inputs).clamp_min(0)


def saturation_penalty(network: nn.Module, images: Images) -> tuple[Logits, Value]:
    """The logits and, summed over the network's saturating layers, the mean of `distance_from_saturation`.

    What differs from Nayebi & Ganguli (2017), and why: they sum over the units of a layer too; of the mean over units
    and images a weight means the same for a small network or image as for a large one. A layer's term is between 0,
    all saturated, and 1/2.

    Raises:
        UsageError: a network without a `SaturatedLinear`.
    """
    _check_saturating(network)
    with _inputs_of_saturating(network) as inputs:
        logits: Logits = network(images)
    return logits, torch.stack([distance_from_saturation(each).mean() for each in inputs]).sum()


@torch.no_grad()
def unsaturated(network: nn.Module, images: Images, *, batch_size: int = 256) -> float:
    """The share of all saturating units, over the images, whose derivative is not zero: their input is within 0 and 1.

    The network is asked as it is, in training or in evaluation mode.

    Args:
        network: with a `SaturatedLinear` in it.
        images: `B C H W` in [0, 1].
        batch_size: images at a time.

    Raises:
        UsageError: a network without a `SaturatedLinear`.
        InputError: no images.
    """
    _check_saturating(network)
    if not len(images):
        raise InputError("there are no images to count unsaturated units on", "give at least one")
    linear, total = 0, 0
    for part in images.split(batch_size):
        with _inputs_of_saturating(network) as inputs:
            network(part)
        linear += sum(int(((each > 0) & (each < 1)).sum()) for each in inputs)
        total += sum(each.numel() for each in inputs)
    return linear / total


def _check_saturating(network: nn.Module) -> None:
    if not any(isinstance(module, SaturatedLinear) for module in network.modules()):
        problem = f"the {type(network).__name__} has no saturating units"
        raise UsageError(problem, "build it with activation='saturating'")


@contextmanager
def _inputs_of_saturating(network: nn.Module) -> Iterator[list[Tensor]]:
    """What every saturating layer is given while the network runs inside, in the order of their calls."""
    inputs: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0])

    layers = [module for module in network.modules() if isinstance(module, SaturatedLinear)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
