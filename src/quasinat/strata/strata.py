"""Strata of the image space: image -> latent -> vote of training latents -> stratum (the paper, section 3.4)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels, Latents, PerImageInt
from quasinat.strata.autoencoder import DenoisingAutoencoder, train_autoencoder
from quasinat.strata.clustering import k_means
from quasinat.strata.neighbours import nearest, vote


class Strata(nn.Module):
    """Assigns each image `B C H W` in [0, 1] its stratum, `B` integers below `count`."""

    latents: Tensor
    labels: Tensor

    def __init__(
        self, autoencoder: DenoisingAutoencoder, latents: Latents, labels: Labels, *, count: int, neighbours: int
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)
        self.count, self.neighbours = count, neighbours
        self.register_buffer("latents", latents)
        self.register_buffer("labels", labels)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Images) -> PerImageInt:
        latents = encode(self.autoencoder, images)
        return vote(self.labels.cpu(), nearest(latents, self.latents, self.neighbours), self.count).to(images.device)


@torch.no_grad()
def encode(autoencoder: DenoisingAutoencoder, images: Images, batch_size: int = 256) -> Latents:
    """Latents in eval mode, in batches."""
    autoencoder.eval()
    return torch.cat([autoencoder.encode(batch) for batch in images.split(batch_size)])


def fit_strata(
    images: Images,
    *,
    count: int = 4,
    neighbours: int = 5,
    noise: float = 0.15,
    epochs: int = 10,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Strata:
    """Trains the denoising autoencoder, clusters the training latents and keeps them for the vote.

    Args:
        images: training images `B C H W` in [0, 1]; never a test image.
        count: M, 4 in the paper for CIFAR-10 and ImageNet-10, 10 for ImageNet.
        neighbours: k of the vote.
        noise: deviation of the autoencoder's Gaussian noise.
        epochs: of the autoencoder.
        seed: of all of it.
        on_epoch: progress of the autoencoder.
    """
    autoencoder = train_autoencoder(images, noise=noise, epochs=epochs, seed=seed, on_epoch=on_epoch)
    latents = encode(autoencoder, images)
    _, labels = k_means(latents, count, seed=seed)
    return Strata(autoencoder, latents, labels, count=count, neighbours=neighbours)
