"""The denoising autoencoder whose latents decide an image's stratum (the paper, section 3.4)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, Latents
from quasinat.artefact import Card, check_state, read_artefact, write_artefact
from quasinat.errors import InputError
from quasinat.parallel import mine
from quasinat.training.checkpoint import Checkpoint, digest
from quasinat.training.loop import minimise

SIDE = 32
KIND = "autoencoder"
SmallImages = Float[Tensor, "batch channels 32 32"]


def small_copy(images: Images) -> SmallImages:
    """The copy of 32 x 32 pixels that the autoencoder sees; images of that size are returned as they are."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


class DenoisingAutoencoder(nn.Module):
    """Three conv-BN-ReLU-pool stages of `width` channels down to 4 x 4, and three back up.

    Images `B C H W` in [0, 1] are brought to 32 x 32; latents are `B 16*width`. `card` is what the file said that it
    was read from; empty for a new one.
    """

    card: Card

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.card = {}
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
    checkpoint: Path | None = None,
) -> DenoisingAutoencoder:
    """Trains an autoencoder to return the natural image from itself and from a noisy copy (section 3.4).

    Args:
        width: channels of each stage.
        epochs: passes over the images.
        batch_size: images in a batch.
        learning_rate: the peak of one cycle.
        images: `B C H W` in [0, 1], training images only; the network has their device and dtype.
        noise: deviation of the Gaussian noise.
        seed: of weights, batches and noise.
        on_epoch: called with the epoch, from 1, and its mean squared error.
        checkpoint: a file that keeps the state after every epoch; started again, the training continues from it.
    """
    small = torch.cat([small_copy(part) for part in images.split(1024)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DenoisingAutoencoder(images.shape[1], width).to(small)

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        clean = small[indices]
        noisy = clean + noise * torch.randn(clean.shape, generator=generator).to(clean)
        half = len(indices) // 2  # half of a batch is natural, half noise-perturbed
        return F.mse_loss(network(mine(torch.cat([clean[:half], noisy[half:]]))), mine(clean))

    kept = None
    if checkpoint:
        own = {"training": KIND, "noise": noise, "width": width, "data": digest(small)}
        kept = Checkpoint(checkpoint, own)
    minimise(
        network,
        loss,
        count=len(small),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        on_epoch=on_epoch,
        checkpoint=kept,
    )
    return network


def save_autoencoder(network: DenoisingAutoencoder, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Writes an artefact of kind "autoencoder", whole or not at all.

    Args:
        network: the autoencoder.
        path: of the file to write.
        provenance: how it was made (data, seed, curve...), anything that JSON holds; `card["provenance"]` once loaded.
    """
    settings = {"channels": network.channels, "width": network.width}
    write_artefact(Path(path), KIND, network.state_dict(), {"settings": settings, "provenance": dict(provenance)})


def load_autoencoder(path: str | Path) -> DenoisingAutoencoder:
    """Reads what `save_autoencoder` wrote, in eval mode; its `card` is the file's.

    Args:
        path: of the file.

    Raises:
        InputError: the file is missing, damaged, or holds no autoencoder.
    """
    path = Path(path)
    tensors, card = read_artefact(path, KIND)
    network = autoencoder_from(card.get("settings"), tensors, path=path)
    network.card = card
    return network


def autoencoder_from(
    settings: Any, tensors: Mapping[str, Tensor], prefix: str = "", *, path: Path
) -> DenoisingAutoencoder:
    """The autoencoder of `settings` (`channels`, `width`) with the weights under `prefix`, in eval mode.

    Raises:
        InputError: settings that are none, or a tensor that is missing, unknown, or of another shape or type.
    """
    channels, width = (positive(settings, name, path) for name in ("channels", "width"))
    with torch.device("meta"):  # shapes only, so that a damaged card costs no memory
        blank = DenoisingAutoencoder(channels, width).state_dict()
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    check_state(path, own, {prefix + name: value for name, value in blank.items()})
    network = DenoisingAutoencoder(channels, width)
    network.load_state_dict({name: own[prefix + name] for name in blank})
    return network.eval()


def positive(settings: Any, name: str, path: Path) -> int:
    """The setting `name` of a card, an integer from 1 to 65,536; an `InputError` names any other."""
    value = settings.get(name) if isinstance(settings, dict) else None
    if type(value) is not int or not 1 <= value <= 2**16:
        raise InputError(f"{path} has no usable setting {name!r} ({value!r})", "learn it again")
    return value
