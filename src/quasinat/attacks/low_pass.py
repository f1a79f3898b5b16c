"""An attack that hides in the band which the layer passes through uncoded."""

import torch
from torch import Tensor

from quasinat.arrays import Images, Labels, PerImageInt
from quasinat.attacks.budget import Budget
from quasinat.attacks.model_access import OnStep
from quasinat.attacks.result import AttackResult
from quasinat.attacks.subspace import Projector, layer_of, within_subspace
from quasinat.defended import Defended
from quasinat.errors import UsageError

WEIGHT = 5.0  # of the Tikhonov split (`tikhonov_split`)


def low_pass(
    model: Defended,
    images: Images,
    labels: Labels,
    *,
    budget: Budget,
    steps: int = 20,
    loss: str = "cross-entropy",
    passed: float = 0.5,
    on_step: OnStep | None = None,
) -> AttackResult:
    """BIM with perturbations made only of frequencies that the Tikhonov split leaves to the low-pass part.

    Mirrored as the split mirrors it, an image is a sum of cosines (DCT-II), of which cosine (k, l) passes by
    1 / (1 + 5 (4 - 2 cos(pi k / H) - 2 cos(pi l / W))). Those of at least `passed` span the subspace. The sparse coding
    never sees them, so that no lambda and no dictionary helps. A failed image returns its iterate of the largest loss.

    Args:
        model: a `Defended` whose layer has the split "tikhonov", with a named adjoint.
        images: `B C H W` in [0, 1].
        labels: the true classes.
        budget: per image.
        steps: at most; an image stops at its first success.
        loss: of `LOSSES`.
        passed: the least share of a cosine that must pass uncoded, in (0, 1].
        on_step: called with the steps done and the steps in all.

    Returns:
        With the stat `outside`: the share of the perturbation's energy that clipping has put outside the band.

    Raises:
        InputError: a batch or a model that cannot be attacked; names the image.
        UsageError: no such layer, or an option out of range.
    """
    layer = layer_of(model, "low-pass")
    if layer.split != "tikhonov":
        raise UsageError(f"a layer of split {layer.split!r} passes nothing through", "use active-span, or pgd")
    if not 0 < passed <= 1:
        raise UsageError(f"passed is {passed}", "give a share above 0 and at most 1")

    def projector(clean: Images) -> Projector:
        height, width = clean.shape[-2:]
        rows, columns = _cosines(height, clean), _cosines(width, clean)
        kept = (_response(height, width).to(clean.device) >= passed).to(clean.dtype)

        def project(directions: Images, numbers: PerImageInt) -> Images:
            return rows.T @ (kept * (rows @ directions @ columns.T)) @ columns

        return project

    return within_subspace(model, images, labels, projector, budget=budget, steps=steps, loss=loss, on_step=on_step)


def _cosines(length: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix, one cosine a row."""
    k = torch.arange(length, dtype=torch.float64)
    matrix = (torch.pi * k[:, None] * (k + 0.5) / length).cos() * (2 / length) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.to(like)


def _response(height: int, width: int) -> Tensor:
    """What the Tikhonov split passes of each cosine."""
    powers = [2 - 2 * (torch.pi * torch.arange(n, dtype=torch.float64) / n).cos() for n in (height, width)]
    return 1 / (1 + WEIGHT * (powers[0][:, None] + powers[1]))
