"""The vote by products is that of the index."""

import pytest
import torch

from layers import images_of, strata_of
from quasinat.export.fixed_strata import FixedStrata
from quasinat.strata import Strata
from quasinat.strata.pca import fit_pca


@pytest.mark.parametrize(("height", "width"), [(20, 20), (32, 32), (40, 48)])
@pytest.mark.parametrize("neighbours", [1, 4, 12])
def test_images_get_the_stratum_of_the_index(height: int, width: int, neighbours: int) -> None:
    strata = strata_of(3)
    strata.neighbours = neighbours
    images = images_of(3, 24, height, width)
    found, truth = FixedStrata(strata, height, width)(images), strata(images)
    assert torch.equal(found, truth)
    assert neighbours == 12 or len(truth.unique()) > 1  # twelve of twelve vote the same for every image but for ties


def test_principal_components_come_first() -> None:
    plain = strata_of(3)
    pca = fit_pca(plain.latents, 3)
    strata = Strata(plain.autoencoder, pca.project(plain.latents), plain.labels, count=3, neighbours=2, pca=pca)
    images = images_of(3, 24)
    assert torch.equal(FixedStrata(strata, 20, 20)(images), strata(images))
