"""k-means on latents (faiss), ten k-means++ starts (Arthur & Vassilvitskii 2007), the best kept."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from quasinat.arrays import Latents
from quasinat.errors import UsageError
from quasinat.parallel import from_process, joined, leads, mine, summed

Centres = Float[Tensor, "count features"]
Places = Int64[Tensor, "batch"]
SAMPLE = 2**18


def k_means(
    latents: Latents, count: int, *, starts: int = 10, iterations: int = 50, seed: int = 0, sample: int = SAMPLE
) -> tuple[Centres, Places]:
    """Centres and, for every latent, the index of its nearest centre.

    Up to `sample` latents are clustered by faiss. Of more, so many are drawn and clustered, and Lloyd's iteration on
    all of them goes on from there. Several processes that call it with the same arguments share that iteration and the
    assignment, and all get the same.

    Args:
        latents: `B L`, training latents only.
        count: M, at most the number of latents.
        starts: restarts; the one of least inertia wins.
        iterations: of each start, at most; it ends when the inertia no longer falls.
        seed: of the starts and of the sample.

    Raises:
        UsageError: more clusters than latents, or none.
    """
    if not 1 <= count <= len(latents):
        raise UsageError(f"{count} strata of {len(latents)} images", "ask for at least one and at most one an image")
    points = latents.detach().cpu().float().contiguous()
    drawn = points
    if len(points) > sample:
        drawn = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[: max(sample, count)]]
    centres = from_process(_by_faiss(drawn, count, starts, iterations, seed) if leads() else drawn[:0])
    if len(drawn) < len(points):
        centres = lloyd(points, centres, iterations)
    return centres, joined(nearest_centres(mine(points), centres))


def lloyd(points: Latents, centres: Centres, iterations: int) -> Centres:
    """Each centre moves to the mean of the points nearest to it, until none moves; one that has none stays.

    Every process sums its share of the points.
    """
    own = mine(points)
    for _ in range(iterations):
        labels = nearest_centres(own, centres)
        counts = summed(labels.bincount(minlength=len(centres)))[:, None]
        sums = summed(torch.zeros_like(centres, dtype=torch.float64).index_add(0, labels, own.double()))
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centres.double()).float()
        if moved.equal(centres):
            break
        centres = moved
    return centres


def nearest_centres(points: Latents, centres: Centres) -> Places:
    """For every point the index of its nearest centre."""
    import faiss

    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(centres.numpy())
    return torch.from_numpy(index.search(points.numpy(), 1)[1][:, 0].copy())


def _by_faiss(points: Latents, count: int, starts: int, iterations: int, seed: int) -> Centres:
    import faiss
    import numpy as np

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
    clustering.train(points.numpy())
    return torch.from_numpy(np.array(clustering.centroids))
