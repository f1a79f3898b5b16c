"""An attack made of the atoms that the layer already uses for the image."""

import torch

from quasinat.arrays import Images, Labels, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.checks import check_number
from quasinat.attacks.model_access import OnStep
from quasinat.attacks.result import AttackResult
from quasinat.attacks.subspace import Projector, layer_of, within_subspace
from quasinat.defended import Defended
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding.problem import SparseCodingProblem
from quasinat.sparse_coding.solve import solve
from quasinat.sparse_coding.span import solve_on_support
from quasinat.strata import split_bands


def active_span(
    model: Defended,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    steps: int = 20,
    loss: str = "cross-entropy",
    tolerance: float = 1e-3,
    on_step: OnStep | None = None,
) -> AttackResult:
    """BIM with perturbations in the span of the atoms that are active in the clean image's codes.

    While the support S and the signs of the codes stay, T(x + D_S v) = T(x) + D_S v: the layer passes such a
    perturbation through, whatever lambda is (`implicit.py`). A failed image returns its iterate of the largest loss.

    Args:
        model: a `Defended` with a layer and a named adjoint.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image.
        steps: at most; an image stops at its first success.
        loss: of `LOSSES`.
        tolerance: of the projections' conjugate gradients.
        on_step: called with the steps done and the steps in all.

    Returns:
        With the stat `outside`: the share of the perturbation's energy that clipping has put outside the span.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: no such layer, or an option out of range.
    """
    layer = layer_of(model, "active-span")
    check_number("tolerance", tolerance)
    return within_subspace(
        model,
        images,
        labels,
        lambda clean: _on_active_atoms(layer, clean, tolerance),
        budget=budget,
        steps=steps,
        loss=loss,
        on_step=on_step,
    )


@torch.no_grad()
def _on_active_atoms(layer: SparseTransformationLayer, images: Images, tolerance: float) -> Projector:
    """The projection on each image's active atoms, of its stratum's dictionary."""
    members, coded = layer.stratum(images), split_bands(images, layer.split)[1]
    codes, place = [], torch.zeros_like(members)
    for stratum, filters in enumerate(layer.filters):
        own = (members == stratum).nonzero()[:, 0]
        place[own] = torch.arange(len(own), device=own.device)
        problem = SparseCodingProblem(coded[own], filters, layer.sparsity)
        codes.append(solve(problem, layer.solver, codes="sparse").codes)

    @torch.no_grad()
    def project(directions: Images, rows: PerImageInt) -> Images:
        projected = torch.zeros_like(directions)
        for stratum, filters in enumerate(layer.filters):
            own = (members[rows] == stratum).nonzero()[:, 0]
            if len(own):
                support = codes[stratum].index_select(0, place[rows[own]]).coalesce()
                found = solve_on_support(directions[own], filters, support, tolerance=tolerance)
                projected[own] = found.synthesis
        return projected

    return project
