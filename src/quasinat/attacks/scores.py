"""What a score-based black-box attack sees of a model: losses and successes, never a gradient."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from quasinat.arrays import Images, PerImage, PerImageBool, PerImageInt
from quasinat.attacks.goal import Goal
from quasinat.attacks.model_access import logits_of

CHUNK = 1024  # images that a model sees at once, where an attack has many candidates for each image
ROUNDING = 16  # units in the last place by which a loss must rise to count as better

CandidateLosses = Float[Tensor, "batch candidates"]
CandidateFlags = Bool[Tensor, "batch candidates"]
Candidates = Callable[[PerImageInt, PerImageInt], Images]


def scores(
    model: nn.Module, images: Images, goal: Goal, loss: str, rows: PerImageInt | None = None
) -> tuple[PerImage, PerImageBool]:
    """The loss of each image (see `LOSSES`) and whether the goal is reached there; one forward pass each.

    `rows` are the numbers of these images in the caller's batch, for error messages.
    """
    with torch.no_grad():
        logits = logits_of(model, images, goal, rows)
    return goal.loss(loss, logits), goal.reached(logits)


def scores_of_candidates(
    model: nn.Module, candidates: Candidates, each: int, goal: Goal, loss: str, rows: PerImageInt
) -> tuple[CandidateLosses, CandidateFlags]:
    """The same of `each` candidates for every image, made and seen `CHUNK` at a time.

    Args:
        model: images to logits.
        candidates: which image (its place in `rows`) and which of its candidates, `N` each, to the `N` images.
        each: how many candidates an image has.
        goal: of the images in `rows`.
        loss: of `LOSSES`.
        rows: the numbers of the images in the caller's batch, at least one.
    """
    losses, reached = [], []
    for pair in torch.arange(len(rows) * each, device=rows.device).split(CHUNK):
        owner, number = pair // each, pair % each
        values, hit = scores(model, candidates(owner, number), goal.of(owner), loss, rows[owner])
        losses.append(values)
        reached.append(hit)
    return torch.cat(losses).view(len(rows), each), torch.cat(reached).view(len(rows), each)


def better(new: Float[Tensor, "*any"], old: Float[Tensor, "*any"]) -> Bool[Tensor, "*any"]:
    """Where a loss has risen by more than rounding.

    Equal images may differ in the last digits of their logits with the batch that they are in, and what is kept of a
    random search must not hang on that.
    """
    return new > old + ROUNDING * torch.finfo(old.dtype).eps * (1 + old.abs())
