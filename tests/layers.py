"""Small layers and images for the tests of the layer."""

from typing import Any

import torch
from torch import Tensor

from quasinat.data import photograph
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Constraint, Dictionary, project_filters
from quasinat.strata import DenoisingAutoencoder, Strata


def dictionary_of(
    channels: int,
    seed: int = 0,
    filters: int = 8,
    size: int = 5,
    constraint: Constraint = "joint",
    zero_mean: bool = False,
) -> Dictionary:
    """Random filters with a made-up past."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(filters, channels, size, size, generator=generator)
    projected = project_filters(atoms, constraint, zero_mean=zero_mean)
    return Dictionary(projected, constraint, 0.05, (3.0, 2.0 + seed), 7, zero_mean, (2.5, 1.5, 1.25), seed)


def strata_of(channels: int, count: int = 3) -> Strata:
    """Untrained strata that do tell images apart: each class's latents are those of images like it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        autoencoder = DenoisingAutoencoder(channels, 4).eval()
    with torch.no_grad():
        latents = autoencoder.encode(images_of(channels, 12, 20, 20))
    return Strata(autoencoder, latents, torch.arange(12) % count, count=count, neighbours=1)


def images_of(channels: int, count: int, height: int = 20, width: int = 20) -> Tensor:
    """Crops of two photographs, each image from another place."""
    photos = [photograph(name, colour=channels == 3, size=128) for name in ("chelsea", "coffee")]
    return torch.stack(
        [photos[i % 2][:, 7 * i % 90 :, 11 * i % 90 :][:, :height, :width].clone() for i in range(count)]
    )


def stratified(channels: int = 3, sparsity: float = 0.05, **options: Any) -> SparseTransformationLayer:
    """A layer of three strata; `images_of` take turns."""
    strata = strata_of(channels)
    dictionaries = [dictionary_of(channels, seed) for seed in range(strata.count)]
    return SparseTransformationLayer(strata, dictionaries, sparsity, **options)


def universal(channels: int = 3, sparsity: float = 0.05, **options: Any) -> SparseTransformationLayer:
    """A layer of one dictionary."""
    return SparseTransformationLayer(None, [dictionary_of(channels)], sparsity, **options)
