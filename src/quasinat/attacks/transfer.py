"""Attacks on models that stand in for the one that is judged."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels, Logits
from quasinat.attacks.bim import bim
from quasinat.attacks.budget import Budget
from quasinat.attacks.model_access import attacking, logits_of
from quasinat.attacks.result import AttackResult, judged
from quasinat.errors import InputError, UsageError


class Ensemble(nn.Module):
    """Several models as one: its class probabilities are the weighted mean of theirs (Liu et al. 2017, section 5).

    log sum_m w_m softmax(z_m(x)) are the logits, z_m those of the m-th model: their cross-entropy is the loss of the
    ensemble-based attack, -log((sum_m w_m J_m(x)) . 1_y). The weights are divided by their sum.

    Args:
        models: of the same classes; they are held, not copied, and nothing of them is changed.
        weights: above 0, one for each model; equal by default.

    Raises:
        UsageError: no models, or weights that are not one positive finite number for each.
    """

    def __init__(self, models: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not models:
            raise UsageError("an ensemble of no models", "give at least one")
        shares = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
        if len(shares) != len(models) or not all(0 < share < math.inf for share in shares):
            raise UsageError(f"the weights {shares} for {len(models)} models", "give each one a finite weight above 0")
        self.models = nn.ModuleList(models)
        self.log_shares = [math.log(share) - math.log(math.fsum(shares)) for share in shares]

    def forward(self, images: Images) -> Logits:
        """The logarithms of the mean probabilities, `B classes`."""
        terms = [
            model(images).log_softmax(1) + share for model, share in zip(self.models, self.log_shares, strict=True)
        ]
        if len({term.shape[1] for term in terms}) > 1:
            problem = f"the models of the ensemble have {', '.join(str(term.shape[1]) for term in terms)} classes"
            raise InputError(problem, "give models of the same classes")
        return torch.stack(terms).logsumexp(0)


def transfer(
    model: nn.Module,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    surrogates: Sequence[nn.Module],
    targets: Labels | None = None,
    weights: Sequence[float] | None = None,
    attack: Callable[..., AttackResult] = bim,
    **options: Any,
) -> AttackResult:
    """Attacks an ensemble of surrogates and judges the images on the model, which lends no gradient.

    A black-box attack: `queries` counts what the model itself was asked, which is the re-check alone. An ensemble
    transfers better than one surrogate, targeted attacks above all (Liu et al. 2017, section 5).

    `stats` tells of each image: `surrogate_success`, whether the ensemble was led to the goal, `surrogates_fooled`,
    how many of the surrogates were, and `surrogate_queries`, the passes through the ensemble; and what the attack's
    own `stats` tell.

    Args:
        model: images to logits; the one that is judged.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image.
        surrogates: models of the same classes, each in evaluation mode during the attack.
        targets: the classes wanted, if the attack is to be targeted.
        weights: of the surrogates, see `Ensemble`.
        attack: a function of this room.
        options: of the attack.

    Raises:
        InputError: a batch or a model that cannot be attacked, or surrogates of other classes.
        UsageError: no surrogates, or weights or options that the ensemble or the attack refuse.
    """
    ensemble = Ensemble(surrogates, weights)
    if targets is not None:
        options = {**options, "targets": targets}
    made = attack(ensemble, images, labels, budget=budget, **options)
    with attacking(ensemble, images, labels, targets) as (_, goal), torch.no_grad():
        fooled = [goal.reached(logits_of(surrogate, made.images, goal)) for surrogate in surrogates]
    with attacking(model, images, labels, targets) as (_, goal):
        stats = {
            **made.stats,
            "surrogate_success": made.success,
            "surrogates_fooled": torch.stack(fooled).sum(0),
            "surrogate_queries": made.queries,
        }
        return judged(model, made.images, goal, queries=0, stats=stats)
