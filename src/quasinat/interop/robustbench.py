"""An evaluation with RobustBench's fields (Croce et al. 2021), and why it cannot stand on its leaderboard."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import L2, Linf
from quasinat.attacks.auto_attack import auto_attack
from quasinat.defended import Defended, StraightThrough
from quasinat.errors import UsageError, did_you_mean
from quasinat.evaluation import accuracy_of
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Identity

THREATS: dict[str, Callable[[float], Linf | L2]] = {"Linf": Linf, "L2": L2}
LEAST = 10_000  # test images that the leaderboard of CIFAR-10 asks for


def benchmark(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    name: str,
    dataset: str = "cifar10",
    architecture: str = "",
    threat: str = "Linf",
    eps: float = 8 / 255,
    batch_size: int = 250,
    seed: int = 0,
) -> dict[str, Any]:
    """Clean and AutoAttack accuracy of a module, as an entry of RobustBench has them.

    Args:
        model: images in [0, 1] to logits; a `Defended` with its gradient named.
        images: `B C H W`, with their true `labels`.
        threat: a key of `THREATS`.
        eps: the radius.
        batch_size, seed: of `auto_attack`.

    Returns:
        RobustBench's fields (`name`, `dataset`, `architecture`, `eps`, `clean_acc`, `autoattack_acc`, the accuracies in
        per cent as text, ...), then `n`, both 95 % intervals, `leaderboard_eligible`, which is False for every module
        of this package, and `why_not`.

    Raises:
        UsageError: an unknown threat, or one of `auto_attack`.
    """
    if threat not in THREATS:
        raise UsageError(f"unknown threat {threat!r}", did_you_mean(threat, list(THREATS)))
    model = model.eval()
    with torch.no_grad():
        clean = torch.cat([model(part).argmax(1) for part in images.split(batch_size)]) == labels
    attacked = auto_attack(model, images, labels, budget=THREATS[threat](eps), batch_size=batch_size, seed=seed)
    accuracies = accuracy_of(clean), accuracy_of(~attacked.success & clean)
    why_not = reasons(model, len(images))
    return {
        "name": name,
        "dataset": dataset,
        "architecture": architecture,
        "threat_model": threat,
        "eps": f"{255 * eps:g}/255" if threat == "Linf" else f"{eps:g}",
        "additional_data": False,
        "number_forward_passes": 1,
        "clean_acc": f"{100 * accuracies[0].value:.2f}",
        "autoattack_acc": f"{100 * accuracies[1].value:.2f}",
        "reported": f"{100 * accuracies[1].value:.2f}",
        "unreliable": bool(why_not),
        "n": len(images),
        "clean_interval": [accuracies[0].low, accuracies[0].high],
        "autoattack_interval": [accuracies[1].low, accuracies[1].high],
        "leaderboard_eligible": not why_not,
        "why_not": why_not,
    }


def reasons(model: nn.Module, count: int) -> list[str]:
    """What RobustBench's rules have against a module: a loop of optimisation, no true gradient, too few images."""
    found = []
    layers = [part for part in model.modules() if isinstance(part, SparseTransformationLayer)]
    if layers:
        found.append("it solves an optimisation problem at inference, which the leaderboard leaves out")
    if any(isinstance(layer.adjoint, Identity) for layer in layers) or any(
        isinstance(part, StraightThrough) for part in model.modules()
    ):
        found.append("its gradient is a straight-through estimate: AutoAttack finds less than there is")
    if isinstance(model, Defended) and not layers:
        found.append("it transforms its input first: such defences are to be attacked adaptively")
    if count < LEAST:
        found.append(f"{count} test images, not {LEAST:,}")
    return found
