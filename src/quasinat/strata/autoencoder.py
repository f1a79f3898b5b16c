"""The denoising autoencoder whose latents decide an image's stratum (the paper, section 3.4)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Latents
from quasinat.training.loop import minimise

SIDE = 32
SmallImages = Float[Tensor, "batch channels 32 32"]


def small_copy(images: Images) -> SmallImages:
    """The copy of 32 x 32 pixels that the autoencoder sees; images of that size are returned as they are."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


class DenoisingAutoencoder(nn.Module):
    """Three conv-BN-ReLU-pool stages of `width` channels down to 4 x 4, and three back up.

    Images `B C H W` in [0, 1] are brought to 32 x 32; latents are `B 16*width`.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        down: list[nn.Module] = []
        for into in (channels, width, width):
            down += [nn.Conv2d(into, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        up: list[nn.Module] = []
        for _ in range(3):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up, nn.Conv2d(width, channels, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, images: Images) -> Latents:
        """The latents of images of any size."""
        latents: Tensor = self.encoder(small_copy(images))
        return latents.flatten(1)

    def forward(self, images: Images) -> SmallImages:
        """The reconstruction of the 32 x 32 copy."""
        reconstruction: Tensor = self.decoder(self.encoder(small_copy(images)))
        return reconstruction


def train_autoencoder(
    images: Images,
    *,
    noise: float = 0.15,
    width: int = 32,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 4e-3,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> DenoisingAutoencoder:
    """Trains an autoencoder to return the natural image from itself and from a noisy copy (section 3.4).

    Args:
        images: `B C H W` in [0, 1], training images only.
        noise: deviation of the Gaussian noise.
        seed: of weights, batches and noise.
        on_epoch: called with the epoch, from 1, and its mean squared error.
    """
    small = small_copy(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DenoisingAutoencoder(images.shape[1], width)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        clean = small[indices]
        noisy = clean + noise * torch.randn(clean.shape, generator=generator).to(clean)
        half = len(indices) // 2  # half of a batch is natural, half noise-perturbed
        return F.mse_loss(network(torch.cat([clean[:half], noisy[half:]])), clean)

    minimise(
        network,
        loss,
        count=len(small),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        on_epoch=on_epoch,
    )
    return network
