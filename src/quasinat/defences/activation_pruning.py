"""Stochastic activation pruning, SAP (Dhillon et al. 2018, section 3): a network that forgets its weak activations."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images, Logits
from quasinat.attacks.checks import check_number
from quasinat.defences.draws import Seed, generators
from quasinat.errors import UsageError
from quasinat.networks import SaturatedLinear

Activations = Float[Tensor, "batch ..."]
PRUNED = (nn.ReLU, SaturatedLinear)
"""The activations whose outputs are pruned: in a `VGG`, those of all its convolutions, each after its normalisation."""


def keep_probabilities(activations: Activations, samples: float) -> Activations:
    """1 - exp(-N p_i) with p_i = |h_i| / sum_j |h_j| over an image's activations and N = `samples` times their number.

    What differs from the source, and why: Dhillon et al. (2018, Algorithm 1) draw N times with replacement and keep
    what was drawn, which keeps h_i with probability 1 - (1 - p_i)^N. The exponential is its limit for small p_i; it
    is the chance of a Poisson number of draws of mean N, which keeps the activations independently of each other.
    Where all activations are 0 all probabilities are.
    """
    shares = activations.abs().flatten(1)
    total = shares.sum(1, keepdim=True)
    shares = shares / total.where(total > 0, 1)
    return -torch.expm1(-samples * shares.shape[1] * shares).view_as(activations)


def prune_activations(
    activations: Activations, *, samples: float = 2.0, generators: Sequence[torch.Generator]
) -> Activations:
    """Each activation kept with its probability and divided by it, or 0: unbiased (Dhillon et al. 2018, Algorithm 1).

    The derivative is that of a product with a fixed mask of 0 and 1 / probability, through kept activations only. Its
    mean over the draws is 1, the derivative of the mean output; differentiating the probability too would take most
    of that away, since h / (1 - exp(-N p)) hardly depends on a small h.

    Args:
        activations: `B ...`, one layer's, of any sign; an image's are pruned together.
        samples: N, the draws, as a multiple of an image's activations; above 0. 2 is the protocol's, where N is twice
            width x height x channels.
        generators: a CPU generator an image, each of which is drawn from once for every activation.

    Raises:
        UsageError: `samples` that is not a positive number, or another number of generators.
    """
    check_number("samples", samples)
    if len(generators) != len(activations):
        raise UsageError(f"{len(generators)} generators for {len(activations)} images", "give one an image")
    mask = torch.zeros_like(activations)
    with torch.no_grad():
        for image, generator, own in zip(
            activations.detach(), generators, mask, strict=True
        ):  # one by one: less memory
            uniform = torch.rand(image.shape, generator=generator).to(image.device)
            kept = keep_probabilities(image[None], samples)[0]
            own.copy_(kept.reciprocal().where(uniform < kept, 0))
    return activations * mask


class ActivationPruning(nn.Module):
    """A trained network with the outputs of its activations pruned at random in every forward pass.

    The network itself is not changed and needs no training for it (Dhillon et al. 2018, section 3); its tensors are
    shared. What is pruned is the output of every module of a type in `PRUNED`, also in training mode; activations that
    a network calls as functions cannot be seen.

    An image's draws are its own, a function of the seed and the image, see `defences.draws`: the same image gets the
    same logits in any batch, up to the rounding of the network, which hardly ever decides whether a unit is kept. For
    an attack on the expectation use `Expectation(with_seed(pruned, None))`.

    What differs from the source, and why: see `keep_probabilities`; Dhillon et al. prune with several N, this is the
    one that the paper of this package compares with.

    Args:
        network: images to logits, with activations as modules.
        samples: see `prune_activations`.
        seed: of the draws; `None` draws afresh in every call.

    Raises:
        UsageError: a network without such modules, or `samples` that is not a positive number.
    """

    def __init__(self, network: nn.Module, *, samples: float = 2.0, seed: Seed = 0) -> None:
        check_number("samples", samples)
        if not any(isinstance(module, PRUNED) for module in network.modules()):
            names = " or ".join(kind.__name__ for kind in PRUNED)
            raise UsageError(f"the {type(network).__name__} has no module {names} to prune after", "give it one")
        super().__init__()
        self.network, self.samples, self.seed = network, samples, seed

    def forward(self, images: Images) -> Logits:
        """The logits of one draw, `B classes`."""
        drawing = generators(images, self.seed, "sap")
        logits: Logits = _pruned(self.network, self.samples, drawing)(images)
        return logits

    def settings(self) -> dict[str, Any]:
        """What decides the logits besides the network, as JSON holds it."""
        return {"samples": self.samples, "seed": self.seed}


class _Pruned(nn.Module):
    """An activation and the pruning of its outputs, for one forward pass of a network."""

    def __init__(self, activation: nn.Module, samples: float, drawing: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.activation, self.samples, self.drawing = activation, samples, drawing

    def forward(self, inputs: Activations) -> Activations:
        return prune_activations(self.activation(inputs), samples=self.samples, generators=self.drawing)


def _pruned(module: Any, samples: float, drawing: Sequence[torch.Generator]) -> Any:
    """A copy of the modules, not of their tensors, in which every activation is followed by the pruning.

    Made anew for each forward pass, which costs nothing next to it, so that no draws are kept in any module.
    """
    if isinstance(module, PRUNED):
        return _Pruned(module, samples, drawing)
    other = copy.copy(module)
    other._modules = {name: part and _pruned(part, samples, drawing) for name, part in module._modules.items()}
    return other
