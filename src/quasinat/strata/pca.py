"""Principal components of latents: fewer, uncorrelated coordinates for k-means and the vote (optional)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Latents
from quasinat.errors import UsageError
from quasinat.parallel import from_process, mine, summed


@dataclass(frozen=True)
class Pca:
    """The mean of the training latents, `L`, and orthonormal axes, `L P`, that of the greatest variance first."""

    mean: Float[Tensor, "features"]
    axes: Float[Tensor, "features components"]

    def project(self, latents: Latents) -> Float[Tensor, "batch components"]:
        """Latents `B L` in the coordinates of the axes, `B P`, about the training mean."""
        return (latents - self.mean) @ self.axes


def fit_pca(latents: Latents, components: int) -> Pca:
    """The axes of greatest variance of training latents, by the eigendecomposition of their covariance in float64.

    An axis has no natural sign: here its entry of largest magnitude is positive. Several processes that call it with
    the same latents share the sums.

    Args:
        latents: `B L`, training latents only.
        components: P, at least one and at most L.

    Raises:
        UsageError: more components than a latent has features, or none.
    """
    features = latents.shape[1]
    if not 1 <= components <= features:
        raise UsageError(
            f"{components} components of latents of {features} features", f"ask for 1 to {features} components"
        )
    parts = mine(latents).split(8192)  # a float64 copy of all latents at once would be the largest thing in memory
    nothing = latents.new_zeros(features, dtype=torch.float64)
    mean = summed(sum((part.double().sum(0) for part in parts), nothing)) / max(1, len(latents))
    scatter = torch.zeros(features, features, dtype=torch.float64, device=latents.device)
    for part in parts:
        centred = part.double() - mean
        scatter += centred.T @ centred
    _, vectors = torch.linalg.eigh(from_process(summed(scatter)) / max(1, len(latents)))  # of ascending variance
    axes = vectors.flip(1)[:, :components]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return Pca(mean.to(latents.dtype), (axes * largest.sign()).to(latents.dtype).contiguous())
