"""k-means on latents (faiss), ten k-means++ starts (Arthur & Vassilvitskii 2007), the best kept."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from quasinat.arrays import Latents
from quasinat.errors import UsageError


def k_means(
    latents: Latents, count: int, *, starts: int = 10, iterations: int = 50, seed: int = 0
) -> tuple[Float[Tensor, "count features"], Int64[Tensor, "batch"]]:
    """Centres and, for every latent, the index of its nearest centre.

    Args:
        latents: `B L`, training latents only.
        count: M, at most the number of latents.
        starts: restarts; the one of least inertia wins.
        iterations: of each start, at most; it ends when the inertia no longer falls.
        seed: of the starts.

    Raises:
        UsageError: more clusters than latents, or none.
    """
    import faiss
    import numpy as np

    if not 1 <= count <= len(latents):
        raise UsageError(f"{count} strata of {len(latents)} images", "ask for at least one and at most one an image")
    points = latents.detach().cpu().float().contiguous().numpy()
    clustering = faiss.Kmeans(
        points.shape[1],
        count,
        niter=iterations,
        nredo=starts,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),  # every latent counts: no subsample
    )
    clustering.train(points)
    _, nearest = clustering.index.search(points, 1)
    centres = torch.from_numpy(np.array(clustering.centroids))
    return centres, torch.from_numpy(nearest[:, 0].copy())
