"""PixelDefend's density: a PixelCNN trained on natural images, and its file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.arrays import Images
from quasinat.artefact import check_state, read_artefact, write_artefact
from quasinat.errors import InputError
from quasinat.networks.pixelcnn import PixelCNN
from quasinat.parallel import mine
from quasinat.strata.autoencoder import positive
from quasinat.training.checkpoint import Checkpoint, digest
from quasinat.training.loop import minimise

KIND = "pixelcnn"


def learn_pixelcnn(
    images: Images,
    *,
    width: int = 32,
    blocks: int = 6,
    mixtures: int = 5,
    epochs: int = 5,
    batch_size: int = 16,
    learning_rate: float = 4e-3,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> PixelCNN:
    """Trains a PixelCNN on images by maximum likelihood and returns it in eval mode.

    (Song et al. 2018, "PixelDefend", section 3.2, uses PixelCNN++ of Salimans et al. 2017.) It is small, for a
    processor; `width`, `blocks` and `mixtures` make it larger. Their network reaches 2.92 bits a dimension on CIFAR-10;
    what this one reaches is in its card.

    Args:
        epochs: passes over the images.
        batch_size: images in a batch.
        learning_rate: the peak of one cycle.
        images: `B C H W` in [0, 1], training images only; rounded to 8 bits.
        width, blocks, mixtures: see `PixelCNN`.
        seed: of weights and batches.
        on_epoch: called with the epoch, from 1, and its mean loss in bits a dimension.
        checkpoint: a file that keeps the state after every epoch; started again, the training continues from it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PixelCNN(images.shape[1], width=width, blocks=blocks, mixtures=mixtures)
    network.to(images.device)
    dimensions = images[0].numel()

    def loss(indices: Tensor, generator: torch.Generator) -> Tensor:
        return -network.log_likelihood(images[mine(indices)]).mean() / dimensions

    kept = None
    if checkpoint:
        kept = Checkpoint(checkpoint, {"training": KIND, **network.settings(), "data": digest(images)})
    minimise(
        network,
        loss,
        count=len(images),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        on_epoch=on_epoch,
        checkpoint=kept,
    )
    return network


def save_pixelcnn(network: PixelCNN, path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Writes an artefact of kind "pixelcnn", whole or not at all.

    Args:
        network: the PixelCNN.
        path: of the file to write.
        provenance: how it was made, anything that JSON holds; `card["provenance"]` once loaded.
    """
    card = {"settings": network.settings(), "provenance": dict(provenance)}
    write_artefact(Path(path), KIND, network.state_dict(), card)


def load_pixelcnn(path: str | Path) -> PixelCNN:
    """Reads what `save_pixelcnn` wrote, in eval mode on the CPU; its `card` is the file's.

    Args:
        path: of the file.

    Raises:
        InputError: the file is missing, damaged, or holds no PixelCNN.
    """
    path = Path(path)
    tensors, card = read_artefact(path, KIND)
    names = ("channels", "width", "blocks", "mixtures")
    settings = {name: positive(card.get("settings"), name, path) for name in names}
    if settings["blocks"] > len(tensors):  # each has tensors of its own, and takes its time to make
        raise InputError(f"{path} holds fewer tensors than its {settings['blocks']} blocks have", "learn it again")
    with torch.device("meta"):  # shapes only, so that a damaged card costs no memory
        blank = PixelCNN(**settings).state_dict()
    check_state(path, tensors, blank)
    network = PixelCNN(**settings)
    network.load_state_dict(tensors)
    network.card = card
    return network.eval()
