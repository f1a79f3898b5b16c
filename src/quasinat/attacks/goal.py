"""What an attack wants, and what it climbs to get there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from quasinat.arrays import Labels, Logits, PerImage, PerImageBool, PerImageInt
from quasinat.errors import UsageError, did_you_mean

Loss = Callable[[Logits, Labels, Labels | None], PerImage]
FLOOR = 1e-12  # of DLR's denominator, as in the authors' code: where all logits tie the slope must not overflow


@dataclass(frozen=True)
class Goal:
    """That the model leaves the labels or, if there are targets, that it says those.

    Attributes:
        labels: the true classes, `B`.
        targets: the classes wanted, `B`; `None` for an untargeted attack.
    """

    labels: Labels
    targets: Labels | None = None

    def reached(self, logits: Logits) -> PerImageBool:
        """Success: the first largest logit is not the label's, or is the target's."""
        said = logits.argmax(1)
        return said != self.labels if self.targets is None else said == self.targets

    def loss(self, name: str, logits: Logits) -> PerImage:
        """The loss of that name, see `LOSSES`; it grows as the goal comes closer."""
        return LOSSES[name](logits, self.labels, self.targets)

    def of(self, rows: PerImageInt | PerImageBool) -> "Goal":
        """The goal of some of the images."""
        return Goal(self.labels[rows], None if self.targets is None else self.targets[rows])


def cross_entropy(logits: Logits, labels: Labels, targets: Labels | None = None) -> PerImage:
    """The cross-entropy of the label, or minus that of the target."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def margin(logits: Logits, labels: Labels, targets: Labels | None = None) -> PerImage:
    """The largest other logit less the label's, or the target's less the largest other one.

    Above zero exactly where the goal is reached (but for ties). It is -f_6 of Carlini & Wagner (2017, section V.A),
    and its gradient does not vanish where the model is sure of itself.
    """
    wanted = labels if targets is None else targets
    own = logits.gather(1, wanted[:, None])[:, 0]
    rival = logits.scatter(1, wanted[:, None], -torch.inf).amax(1)
    return rival - own if targets is None else own - rival


def difference_of_logits_ratio(logits: Logits, labels: Labels, targets: Labels | None = None) -> PerImage:
    """DLR, which neither a shift nor a positive scale of the logits changes (Croce & Hein 2020, Eq. 6 and 7).

    -(z_y - max_{k != y} z_k) / (z_(1) - z_(3)), and with targets -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), where
    z_(i) is the i-th largest logit. With fewer classes than a formula needs the smallest logit stands in. Then the
    ratio may be a constant that leaves nothing to climb: of two classes it always is, of three where the target's logit
    is the smallest; `margin` serves there.
    """
    ordered = logits.sort(1, descending=True).values
    last = logits.shape[1] - 1
    tiny = max(FLOOR, torch.finfo(logits.dtype).tiny)
    if targets is None:
        return margin(logits, labels) / (ordered[:, 0] - ordered[:, min(2, last)]).clamp_min(tiny)
    low = (ordered[:, min(2, last)] + ordered[:, min(3, last)]) / 2
    own, target = (logits.gather(1, wanted[:, None])[:, 0] for wanted in (labels, targets))
    return (target - own) / (ordered[:, 0] - low).clamp_min(tiny)


LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}
"""Each takes logits, labels and targets or `None`."""


def check_loss(name: str) -> None:
    """Refuses a name that is no loss, with a UsageError that names the closest."""
    if name not in LOSSES:
        raise UsageError(f"unknown loss {name!r}", did_you_mean(name, list(LOSSES)))
