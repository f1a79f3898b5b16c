"""An evaluation with RobustBench's fields (Croce et al. 2021), and what stands between a module and its leaderboard."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import L2, Linf
from quasinat.attacks.auto_attack import auto_attack
from quasinat.errors import UsageError, did_you_mean
from quasinat.evaluation import accuracy_of
from quasinat.interop.robustbench_rules import forward_passes, reasons

THREATS: dict[str, Callable[[float], Linf | L2]] = {"Linf": Linf, "L2": L2}
TRIED = 8  # images that the rules are tried on


def benchmark(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    name: str,
    authors: str = "",
    link: str = "",
    venue: str = "Unpublished",
    dataset: str = "cifar10",
    architecture: str = "",
    additional_data: bool = False,
    number_forward_passes: int | None = None,
    reported: str | None = None,
    external: str = "",
    footnote: str = "",
    threat: str = "Linf",
    eps: float = 8 / 255,
    batch_size: int = 250,
    seed: int = 0,
) -> dict[str, Any]:
    """Clean and AutoAttack accuracy of a module, as an entry of RobustBench has them (its `model_info/*.json`).

    Args:
        model: images in [0, 1] to logits; a `Defended` with its gradient named.
        images: `B C H W`, with their true `labels`.
        name, authors, link, venue: of the paper.
        dataset, architecture: in RobustBench's words.
        additional_data: whether images beyond the data set's own were trained on.
        number_forward_passes: of the classifier, for one image; counted (`forward_passes`) unless given.
        reported: the robust accuracy that the paper states, in per cent; this evaluation's unless given.
        external: that of somebody else's stronger attack, in per cent; left out if there is none.
        footnote: a remark; left out if there is none.
        threat: a key of `THREATS`.
        eps: the radius.
        batch_size, seed: of `auto_attack`.

    Returns:
        RobustBench's fields (the accuracies in per cent as text, `unreliable` where something is in `why_not`), then
        `threat_model`, `n`, both 95 % intervals, `leaderboard_eligible`, and `why_not`: the `reasons` against it.

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
    why_not = reasons(model, images[:TRIED], len(images))
    robust = f"{100 * accuracies[1].value:.2f}"
    optional = {"external": external, "footnote": footnote}
    return {
        "link": link,
        "name": name,
        "authors": authors,
        "additional_data": additional_data,
        "number_forward_passes": number_forward_passes or forward_passes(model, images[:1]),
        "dataset": dataset,
        "venue": venue,
        "architecture": architecture,
        "eps": f"{255 * eps:g}/255" if threat == "Linf" else f"{eps:g}",
        "clean_acc": f"{100 * accuracies[0].value:.2f}",
        "reported": robust if reported is None else reported,
        "autoattack_acc": robust,
        **{field: text for field, text in optional.items() if text},
        "unreliable": bool(why_not),
        "threat_model": threat,
        "n": len(images),
        "clean_interval": [accuracies[0].low, accuracies[0].high],
        "autoattack_interval": [accuracies[1].low, accuracies[1].high],
        "leaderboard_eligible": not why_not,
        "why_not": why_not,
    }
