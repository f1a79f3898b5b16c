"""Principal components against scikit-learn's and NumPy's singular vectors."""

import numpy as np
import pytest
import torch
from torch import Tensor

from quasinat.errors import UsageError
from quasinat.strata.pca import fit_pca

decomposition = pytest.importorskip("sklearn.decomposition")


def cloud(points: int, features: int = 12) -> Tensor:
    """Latents of decreasing, distinct variances about a mean far from 0, turned at random."""
    generator = torch.Generator().manual_seed(points)
    turn = torch.linalg.qr(torch.randn(features, features, generator=generator)).Q
    spread = 2.0 ** -torch.arange(features)
    return 5 + (torch.randn(points, features, generator=generator) * spread) @ turn


@pytest.mark.parametrize("components", [1, 3, 8])
@pytest.mark.parametrize("points", [40, 500, 9000])
def test_the_axes_are_scikit_learns_and_the_singular_vectors(points: int, components: int) -> None:
    latents = cloud(points)
    pca = fit_pca(latents, components)
    theirs = decomposition.PCA(components, svd_solver="full").fit(latents.double().numpy())
    centred = latents.double().numpy() - latents.double().numpy().mean(0)
    singular = np.linalg.svd(centred, full_matrices=False)[2][:components]
    for axes in (theirs.components_, singular):
        cosines = (pca.axes.double() * torch.from_numpy(axes.T.copy())).sum(0)
        torch.testing.assert_close(cosines.abs(), torch.ones_like(cosines), rtol=0, atol=1e-5)
    torch.testing.assert_close(pca.mean, latents.double().mean(0).float())
    variances = pca.project(latents).double().var(0)
    torch.testing.assert_close(variances, torch.from_numpy(theirs.explained_variance_), rtol=1e-3, atol=1e-9)


def test_the_sign_is_fixed_and_the_type_is_the_latents() -> None:
    latents = cloud(200)
    pca, mirrored = fit_pca(latents, 6), fit_pca(-latents, 6)
    torch.testing.assert_close(pca.axes, mirrored.axes, rtol=0, atol=1e-5)
    assert (pca.axes.gather(0, pca.axes.abs().argmax(0, keepdim=True)) > 0).all()
    assert pca.axes.dtype == pca.mean.dtype == torch.float32
    assert fit_pca(latents, 6).axes.equal(pca.axes)


def test_all_components_keep_every_distance() -> None:
    latents = cloud(50).double()
    projected = fit_pca(latents, 12).project(latents)
    torch.testing.assert_close(torch.cdist(projected, projected), torch.cdist(latents, latents), rtol=0, atol=1e-6)


@pytest.mark.parametrize("components", [0, -2, 13])
def test_impossible_numbers_of_components_are_refused(components: int) -> None:
    with pytest.raises(UsageError, match=f"{components} components of latents of 12 features; ask for 1 to 12"):
        fit_pca(cloud(30), components)
