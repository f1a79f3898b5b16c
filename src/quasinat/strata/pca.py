"""Principal components of latents: fewer, uncorrelated coordinates for k-means and the vote (optional)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Latents
from quasinat.errors import UsageError


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

    An axis has no natural sign: here its entry of largest magnitude is positive.

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
    mean = latents.double().mean(0)
    scatter = mean.new_zeros(features, features)
    for part in latents.split(8192):  # a float64 copy of all latents at once would be the largest thing in memory
        centred = part.double() - mean
        scatter += centred.T @ centred
    _, vectors = torch.linalg.eigh(scatter / max(1, len(latents)))  # of ascending variance
    axes = vectors.flip(1)[:, :components]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return Pca(mean.to(latents.dtype), (axes * largest.sign()).to(latents.dtype).contiguous())
