"""k-means against scikit-learn's on blobs."""

import pytest
import torch
from torch import Tensor

from quasinat.errors import UsageError
from quasinat.strata.clustering import k_means

sklearn_cluster = pytest.importorskip("sklearn.cluster")


def blobs(seed: int, points: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(6, 4, generator=generator)
    noise = spread * torch.randn(points, 4, generator=generator)
    return centres[torch.randint(6, (points,), generator=generator)] + noise


def inertia(points: Tensor, centres: Tensor) -> float:
    return float(torch.cdist(points.double(), centres.double()).amin(1).square().sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("points", "count", "spread"), [(120, 4, 0.5), (300, 6, 1.5), (4000, 5, 2.0)])
def test_as_tight_as_scikit_learn(seed: int, points: int, count: int, spread: float) -> None:
    latents = blobs(seed, points, spread)
    centres, labels = k_means(latents, count)
    theirs = sklearn_cluster.KMeans(count, n_init=10, random_state=0).fit(latents.double().numpy())
    assert inertia(latents, centres) <= 1.01 * theirs.inertia_
    assert labels.equal(torch.cdist(latents, centres).argmin(1))
    assert centres.shape == (count, 4)


@pytest.mark.parametrize("count", [4, 10])
def test_as_tight_as_scikit_learn_in_many_dimensions(count: int) -> None:
    """Rectified overlapping clouds of unequal size and spread, as an autoencoder's latents are."""
    generator = torch.Generator().manual_seed(count)
    centres, spreads = torch.randn(12, 128, generator=generator), 0.5 + torch.rand(12, generator=generator)
    members = (12 * torch.rand(3000, generator=generator) ** 2).long()
    noise = spreads[members][:, None] * torch.randn(3000, 128, generator=generator)
    latents = (0.6 * centres[members] + noise).relu()
    found, labels = k_means(latents, count)
    theirs = sklearn_cluster.KMeans(count, n_init=10, random_state=0).fit(latents.double().numpy())
    assert inertia(latents, found) <= 1.01 * theirs.inertia_
    assert labels.bincount(minlength=count).min() > 0
    means = torch.stack([latents[labels == stratum].mean(0) for stratum in range(count)])
    assert inertia(latents, means) <= 1.001 * inertia(latents, found)


def test_starts_are_spread_out() -> None:
    """One k-means++ start finds forty small groups far apart; a uniform one misses some."""
    corners = 100.0 * torch.eye(40)
    latents = corners.repeat_interleave(5, 0) + 0.1 * torch.randn(200, 40, generator=torch.Generator().manual_seed(0))
    groups = k_means(latents, 40, starts=1)[1].view(40, 5)
    assert (groups == groups[:, :1]).all()
    assert len(groups[:, 0].unique()) == 40


def test_the_seed_decides_and_the_points_are_left_alone() -> None:
    latents = blobs(0, 200, 1.0)
    kept = latents.clone()
    first, second = k_means(latents, 4, seed=3), k_means(latents, 4, seed=3)
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])
    assert latents.equal(kept)


def test_one_cluster_is_the_mean_and_as_many_as_points_are_the_points() -> None:
    latents = blobs(0, 12, 1.0)
    centres, labels = k_means(latents, 1)
    torch.testing.assert_close(centres[0], latents.mean(0), rtol=0, atol=1e-5)
    assert labels.tolist() == [0] * 12
    assert sorted(k_means(latents, 12)[1].tolist()) == list(range(12))


@pytest.mark.parametrize("count", [0, -1, 13])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} strata of 12 images; ask for at least one and at most one an image"):
        k_means(blobs(0, 12, 1.0), count)
