"""What an attack hands back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, PerImageBool, PerImageInt
from quasinat.attacks.goal import Goal
from quasinat.attacks.model_access import logits_of


@dataclass(frozen=True)
class AttackResult:
    """The answer of every attack.

    Attributes:
        images: the last or best iterate of each image, clipped to [0, 1]; a failed image is never swapped for the
            clean one.
        success: whether the goal (an error, or the target) is reached on the image as returned, re-checked after
            clipping.
        queries: what each image cost: one per forward pass, one per backward pass, the re-check included.
        stats: what else an attack tells of each image, by name, `B`; its docstring says what.
    """

    images: Images
    success: PerImageBool
    queries: PerImageInt
    stats: Mapping[str, Tensor] = field(default_factory=dict)


def judged(
    model: nn.Module,
    images: Images,
    goal: Goal,
    queries: PerImageInt | int,
    stats: Mapping[str, Tensor] | None = None,
) -> AttackResult:
    """Re-checks the final images on the model and counts that query too."""
    with torch.no_grad():
        success = goal.reached(logits_of(model, images, goal))
    if isinstance(queries, int):
        queries = torch.full_like(goal.labels, queries)
    return AttackResult(images.detach(), success, queries + 1, dict(stats or {}))
