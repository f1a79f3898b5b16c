"""Attacks on a whole set whose pieces are kept as they are made: an interruption loses one of them at most."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import AttackResult
from quasinat.experiments.columns import Attack, attacked
from quasinat.experiments.workspace import Step
from quasinat.training.checkpoint import digest

Keep = Callable[[str, Callable[[], Step]], Step]
"""Makes the step of that name, or reads it where it has been made before."""

_STATS = "stats."


def in_pieces(
    attack: Attack,
    model: Callable[[], nn.Module],
    images: Images,
    labels: Labels,
    *,
    size: int,
    keep: Keep,
    report: Callable[[int], None],
) -> Images:
    """The images under an attack that holds each of them to its budget, on the CPU.

    Args:
        attack: takes `model, images, labels`.
        model: asked only where a piece is not there yet.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        size: images of a piece.
        keep: of a piece, by the index of its first image.
        report: hears how many images are done.
    """

    def piece(start: int) -> Step:
        part = slice(start, start + size)
        made = attacked(attack, model(), images[part], labels[part], report=lambda done: report(start + done))
        return {"images": made.cpu()}, {}

    starts = range(0, len(images), size)
    return torch.cat([keep(f"{start:06}", partial(piece, start))[0]["images"] for start in starts])


def keeping(attack: Attack, keep: Keep) -> Attack:
    """The same attack, which keeps what it makes of a batch of images at a budget; for one that is asked many times.

    Args:
        attack: takes `model, images, labels`, perhaps `budget`, and options that do not change between the calls.
        keep: of a batch at a budget, by the budget's size and a digest of images and labels.
    """

    def kept(model: nn.Module, images: Images, labels: Labels, **options: Any) -> AttackResult:
        def run() -> Step:
            made = attack(model, images, labels, **options)
            tensors = {"images": made.images, "success": made.success, "queries": made.queries}
            tensors |= {_STATS + name: value for name, value in made.stats.items()}
            return {name: value.cpu() for name, value in tensors.items()}, {}

        strength = f"{options['budget'].size!r}-" if "budget" in options else ""
        there = {
            name: value.to(images.device)
            for name, value in keep(strength + digest(images, labels)[:16], run)[0].items()
        }
        stats = {name.removeprefix(_STATS): value for name, value in there.items() if name.startswith(_STATS)}
        return AttackResult(there["images"], there["success"], there["queries"], stats)

    return kept
