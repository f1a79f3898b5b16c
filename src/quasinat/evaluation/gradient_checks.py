"""Is the gradient that an attack follows the derivative of what is deployed? Measured, image by image."""

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels, PerImage
from quasinat.attacks.goal import LOSSES
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Implicit, Unrolled

STEP = 1e-5  # L2 length of the finite step: short, so that few codes change their sign or support on the way
EXACT = Implicit(forward_tolerance=1e-13, kkt=1e-6, tolerance=1e-12, max_steps=5000, on_fallback=lambda fell, of: None)


@dataclass(frozen=True)
class GradientAgreement:
    """How three derivatives of the loss agree, per image.

    Attributes:
        differences: |<g, d> - (J(x + h d) - J(x - h d)) / 2h| over |g| |d|, the median over the directions d.
        unrolled: the cosine between the implicit gradient and autograd through the unrolled iterations.
        deployed: the cosine between the gradient as an attack gets it, in the images' own precision and at the
            layer's own tolerance, and the exact one.
    """

    differences: PerImage
    unrolled: PerImage
    deployed: PerImage


def gradient_agreement(
    defended: Defended,
    images: Images,
    labels: Labels,
    *,
    loss: str = "cross-entropy",
    directions: int = 3,
    iterations: int = 400,
    seed: int = 0,
) -> GradientAgreement:
    """Finite differences, autograd and the implicit derivative of the loss of classifier(T(x)), at the images.

    Each image's stratum is held fixed, as the derivative holds it. All is done in double precision on the CPU, solved
    far beyond the tolerance of an attack: the comparison is of the derivatives, not of the solver. Directions are the
    gradient's own and random ones.

    Args:
        defended: a classifier behind a Sparse Transformation Layer, with a named adjoint.
        images: `B C H W` in [0, 1]; a few, each takes seconds.
        labels: the true classes.
        loss: of `LOSSES`.
        directions: of the finite differences, for each image.
        iterations: of the unrolled ADMM.
        seed: of the random directions.

    Raises:
        UsageError: no such layer, or no named adjoint.
    """
    layer = defended.transform
    if not isinstance(layer, SparseTransformationLayer) or layer.adjoint is None:
        raise UsageError("there is no layer with a named gradient to check", "pass defended.with_adjoint(Implicit())")
    generator = torch.Generator().manual_seed(seed)
    members = layer.stratum(images)
    deployed = _gradients(defended, images, labels, loss).cpu().double()
    columns: list[tuple[float, float, float]] = []
    classifier = copy.deepcopy(defended.classifier).double().cpu().eval()
    for i in range(len(images)):
        alone = layer.within(int(members[i])).cpu().double()
        image, label = images[i : i + 1].double().cpu(), labels[i : i + 1].cpu()
        exact = Defended(alone.with_adjoint(EXACT, clipping=layer.clipping), classifier)
        unrolled = Defended(alone.with_adjoint(Unrolled(iterations), clipping=layer.clipping), classifier)
        g, u = _gradients(exact, image, label, loss), _gradients(unrolled, image, label, loss)
        value = _Loss(exact, loss, label)
        errors = []
        for number in range(directions):
            d = g if number == 0 else torch.randn(image.shape, generator=generator, dtype=torch.float64)
            d = d / d.norm().clamp_min(1e-300)
            slope = float((value(image + STEP * d) - value(image - STEP * d)) / (2 * STEP))
            errors.append(abs(float((g * d).sum()) - slope) / max(float(g.norm()), 1e-300))
        columns.append((sorted(errors)[len(errors) // 2], _cosine(g, u), _cosine(g, deployed[i : i + 1])))
    differences, unrolled_cosines, deployed_cosines = torch.tensor(columns, dtype=torch.float64).reshape(-1, 3).T
    return GradientAgreement(differences, unrolled_cosines, deployed_cosines)


def _gradients(model: nn.Module, images: Images, labels: Labels, loss: str) -> Images:
    leaf = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(LOSSES[loss](model(leaf), labels, None).sum(), leaf)
    return gradient


class _Loss:
    """The loss as a function of one image, solved as exactly as for its derivative."""

    def __init__(self, model: Defended, loss: str, label: Labels) -> None:
        layer = model.transform
        assert isinstance(layer, SparseTransformationLayer)
        tight = copy.copy(layer)
        tight.solver = replace(layer.solver, tolerance=EXACT.forward_tolerance, max_steps=5000)  # type: ignore[type-var]
        self.model, self.loss, self.label = Defended(tight, model.classifier), loss, label

    @torch.no_grad()
    def __call__(self, image: Images) -> Tensor:
        return LOSSES[self.loss](self.model(image), self.label, None)


def _cosine(a: Images, b: Images) -> float:
    lengths = float(a.norm() * b.norm())
    return float((a * b).sum()) / lengths if lengths else math.nan


def gradient_norms(model: nn.Module, images: Images, labels: Labels, *, loss: str = "cross-entropy") -> PerImage:
    """The L2 norm of each image's loss gradient; zero where an attack would have nothing to follow."""
    return _gradients(model, images, labels, loss).flatten(1).norm(dim=1)


@torch.no_grad()
def repeat_difference(model: nn.Module, images: Images) -> float:
    """The largest difference between the logits of two evaluations, the second one image by image.

    As a share of the logits' spread (of one image, at most), so that no scale of them hides or feigns randomness. Zero,
    but for rounding, of a model that is deterministic and treats its images one by one.
    """
    if not len(images):
        return 0.0
    together = model(images)
    alone = torch.cat([model(images[i : i + 1]) for i in range(len(images))])
    spread = torch.cat([together, alone]).aminmax(dim=1)
    return float((together - alone).abs().max() / (spread.max - spread.min).max().clamp_min(1e-30))
