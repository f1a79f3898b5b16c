"""RobustBench's three rules for a module, tried on some images, and what else an entry of its leaderboard needs.

(Croce et al. 2021, "RobustBench: a standardized adversarial robustness benchmark", and the README of its repository.) A
defence is admitted if its gradients with respect to the input are in general not zero, if its forward pass is fully
deterministic, and if there is no optimisation loop in it.
"""

import torch
from torch import nn

from quasinat.arrays import Images
from quasinat.attacks import Expectation
from quasinat.defences import D3, ActivationPruning, PixelDefend, RegionVote, TotalVariation, Transformation, with_seed
from quasinat.defended import Defended, EightBit, StraightThrough
from quasinat.errors import UsageError
from quasinat.export.fixed_admm import FixedADMM
from quasinat.interop.chunked import Chunked
from quasinat.layer import SparseTransformationLayer
from quasinat.networks.thermometer import Thermometer
from quasinat.sparse_coding import Identity

LEAST = 10_000  # test images that the leaderboard of CIFAR-10 asks for
SOLVERS = (SparseTransformationLayer, FixedADMM, TotalVariation, D3, PixelDefend)
"""Those whose forward pass searches for the least of something: by steps of a solver, of a pursuit, pixel by pixel."""
INSIDE: dict[type[nn.Module], str] = {
    Defended: "classifier",
    Expectation: "model",
    RegionVote: "classifier",
    ActivationPruning: "network",
    Chunked: "module",
}
"""Where the modules that ask a classifier have it."""


def reasons(model: nn.Module, images: Images, count: int) -> list[str]:
    """What is against a module: each of the three rules that it breaks, then what a fair entry needs beside them.

    That none is found proves nothing: the rules are tried on a few images, and a loop is seen only in modules of this
    package.

    Args:
        model: images in [0, 1] to logits, in evaluation mode; all that is inside it is looked at, however deep.
        images: some of those that it is for, `B C H W`.
        count: of the test images of the evaluation.
    """
    parts = list(model.modules())
    solves = any(isinstance(part, SOLVERS) for part in parts)
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        blind, drawing = without_gradient(model, images), draws(model, images)
    found = {
        "it solves an optimisation problem at inference, which the leaderboard leaves out": solves,
        f"no gradient comes back to its input, or zero, for {blind} of {len(images)} images": 2 * blind > len(images),
        "its forward pass draws at random: two passes differ where no seed holds the draws": drawing,
        "its gradient is a straight-through estimate: AutoAttack finds less than there is": any(
            map(_straight_through, parts)
        ),
        "it transforms its input first: such defences are to be attacked adaptively": not solves
        and any(isinstance(part, Defended | Transformation) for part in parts),
        f"{count} test images, not {LEAST:,}": count < LEAST,
    }
    return [reason for reason, holds in found.items() if holds]


def without_gradient(model: nn.Module, images: Images) -> int:
    """For how many of the images the largest logit less the smallest has no gradient, or a zero one.

    That difference is blind to what logits may be shifted by, and does not saturate as probabilities do.
    """
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        try:
            logits = model(leaf)
        except UsageError:  # no gradient is named, or there can be none
            return len(images)
        spread = logits.amax(1) - logits.amin(1)
        if not spread.requires_grad:
            return len(images)
        (gradient,) = torch.autograd.grad(spread.sum(), leaf, allow_unused=True)
    return len(images) if gradient is None else int((gradient == 0).flatten(1).all(1).sum())


def draws(model: nn.Module, images: Images) -> bool:
    """Whether two forward passes differ by more than rounding, once no seed of ours holds the draws."""
    free = with_seed(model, None)
    with torch.no_grad():
        return not torch.allclose(free(images), free(images), rtol=1e-5, atol=1e-6, equal_nan=True)


def forward_passes(model: nn.Module, images: Images) -> int:
    """How many times the classifier inside a module is asked for each image: views times samples times votes."""
    inside = model
    while kind := next((kind for kind in INSIDE if isinstance(inside, kind)), None):
        inside = getattr(inside, INSIDE[kind])
    rows = 0

    def count(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal rows
        rows += len(inputs[0])

    hook = inside.register_forward_pre_hook(count)
    try:
        with torch.no_grad():
            model(images)
    finally:
        hook.remove()
    return rows // len(images)


def _straight_through(part: nn.Module) -> bool:
    """Whether something else stands for a part's derivative: the identity, or a smoothed thermometer's."""
    if isinstance(part, SparseTransformationLayer):
        return isinstance(part.adjoint, Identity)
    if isinstance(part, Defended):
        return part.eight_bit
    return isinstance(part, StraightThrough | EightBit | Thermometer)
