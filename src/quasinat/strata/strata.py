"""Strata of the image space: image -> latent -> vote of training latents -> stratum (the paper, section 3.4)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels, Latents, PerImage, PerImageInt
from quasinat.artefact import Card, check_numbers, check_tensors, read_artefact, write_artefact
from quasinat.errors import InputError, UsageError
from quasinat.parallel import joined, mine
from quasinat.strata.autoencoder import DenoisingAutoencoder, autoencoder_from, positive, train_autoencoder
from quasinat.strata.clustering import k_means
from quasinat.strata.neighbours import index_of, nearest_in, vote
from quasinat.strata.pca import Pca, fit_pca

KIND = "strata"


class Strata(nn.Module):
    """Assigns each image `B C H W` in [0, 1] its stratum, `B` integers below `count`.

    Args:
        autoencoder: gives the latents; its weights are held fixed from here on.
        latents: of the training images, `N P`, after the PCA if there is one.
        labels: the stratum of each, `N`.
        count: M.
        neighbours: k of the vote.
        pca: of the training latents, applied to those of every image.

    `card` is what the file said that the strata were read from; empty for new ones.
    """

    latents: Tensor
    labels: Tensor
    pca_mean: Tensor | None
    pca_axes: Tensor | None
    card: Card

    def __init__(
        self,
        autoencoder: DenoisingAutoencoder,
        latents: Latents,
        labels: Labels,
        *,
        count: int,
        neighbours: int,
        pca: Pca | None = None,
    ) -> None:
        super().__init__()
        if neighbours < 1:
            raise UsageError(f"{neighbours} neighbours cannot vote", "ask for at least one")
        if len(labels) != len(latents) or len(latents) == 0:
            raise UsageError(f"{len(labels)} labels of {len(latents)} latents", "give one label a latent, at least one")
        self.autoencoder = autoencoder.requires_grad_(False)
        self.count, self.neighbours = count, neighbours
        self.register_buffer("latents", latents)
        self.register_buffer("labels", labels)
        self.register_buffer("pca_mean", pca.mean if pca else None)
        self.register_buffer("pca_axes", pca.axes if pca else None)
        self.card = {}
        self._index: tuple[Tensor, int, Any] | None = None
        self.eval()

    def forward(self, images: Images) -> PerImageInt:
        """The stratum of each image."""
        return self.vote(images)[0]

    @torch.no_grad()
    def vote(self, images: Images) -> tuple[PerImageInt, PerImage]:
        """The stratum of each image and the margin of its vote, in [0, 1]; see `neighbours.vote`.

        Raises:
            InputError: an image without a finite latent.
        """
        latents = self.latent(images)
        lost = ~latents.isfinite().all(1)
        if bool(lost.any()):
            place = int(lost.nonzero()[0])
            raise InputError(f"image {place} has no finite latent", "check it for values that are not finite")
        members, margins = vote(self.labels.cpu(), nearest_in(self._built(), latents, self.neighbours), self.count)
        return members.to(images.device), margins.to(images.device)

    def latent(self, images: Images) -> Latents:
        """Where images lie among the training latents, `B P`: their latents in eval mode, after the PCA if any."""
        latents, pca = encode(self.autoencoder, images), self.pca
        return pca.project(latents) if pca else latents

    @property
    def pca(self) -> Pca | None:
        """The PCA of the latents, on the device of the strata."""
        return None if self.pca_mean is None or self.pca_axes is None else Pca(self.pca_mean, self.pca_axes)

    def settings(self) -> dict[str, int | None]:
        """What `strata_from` needs besides the tensors; JSON."""
        return {
            "count": self.count,
            "neighbours": self.neighbours,
            "channels": self.autoencoder.channels,
            "width": self.autoencoder.width,
            "components": None if self.pca_axes is None else self.pca_axes.shape[1],
        }

    def save(self, path: str | Path, provenance: Mapping[str, Any]) -> None:
        """Writes an artefact of kind "strata", whole or not at all.

        Args:
            provenance: how they were made (data, seed, curves...), anything that JSON holds; once loaded it is
                `card["provenance"]`.
        """
        card = {"settings": self.settings(), "provenance": dict(provenance)}
        write_artefact(Path(path), KIND, self.state_dict(), card)

    @staticmethod
    def load(path: str | Path) -> "Strata":
        """Reads what `save` wrote; `card` is the file's.

        Raises:
            InputError: the file is missing, damaged, or holds no strata.
        """
        tensors, card = read_artefact(Path(path), KIND)
        strata = strata_from(card.get("settings"), tensors, path=Path(path))
        strata.card = card
        return strata

    def _built(self) -> Any:
        """faiss's index of the training latents, kept between calls until they are replaced or written to."""
        latents = self.latents
        version = 0 if latents.is_inference() else latents._version  # counts the writes in place
        if self._index is None or self._index[0] is not latents or self._index[1] != version:
            self._index = (latents, version, index_of(latents))
        return self._index[2]

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go without the index; they build their own when they are first asked."""
        return {**self.__dict__, "_index": None}


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
    components: int | None = None,
    autoencoder: DenoisingAutoencoder | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> Strata:
    """Trains the denoising autoencoder, clusters the training latents and keeps them for the vote.

    Several processes that call it with the same arguments share the work, and all get the same.

    Args:
        images: training images `B C H W` in [0, 1]; never a test image.
        count: M, 4 in the paper for CIFAR-10 and ImageNet-10, 10 for ImageNet.
        neighbours: k of the vote.
        noise: deviation of the autoencoder's Gaussian noise.
        epochs: of the autoencoder.
        seed: of all of it.
        components: principal components of the latents that are clustered and vote; the latents themselves if none.
        autoencoder: one that is trained already; `noise`, `epochs`, `on_epoch` and `checkpoint` are then idle.
        on_epoch: progress of the autoencoder.
        checkpoint: of the autoencoder, see `train_autoencoder`.

    Raises:
        UsageError: an autoencoder of images of another number of channels, or counts that cannot be.
    """
    if autoencoder is None:
        autoencoder = train_autoencoder(
            images, noise=noise, epochs=epochs, seed=seed, on_epoch=on_epoch, checkpoint=checkpoint
        )
    elif autoencoder.channels != images.shape[1]:
        raise UsageError(
            f"the autoencoder takes {autoencoder.channels} channels, the images have {images.shape[1]}",
            "train it on images of the same kind",
        )
    latents = joined(encode(autoencoder, mine(images)))
    pca = None if components is None else fit_pca(latents, components)
    if pca:
        latents = pca.project(latents)
    _, labels = k_means(latents, count, seed=seed)
    return Strata(autoencoder, latents, labels.to(latents.device), count=count, neighbours=neighbours, pca=pca)


def strata_from(settings: Any, tensors: Mapping[str, Tensor], prefix: str = "", *, path: Path) -> Strata:
    """The strata of `Strata.settings()` and of the state dict's tensors whose names start with `prefix`.

    Args:
        path: the file they come from, for messages.

    Raises:
        InputError: settings that are none, a tensor that is missing, unknown or of another shape, or a label that is
            no stratum.
    """
    count, neighbours, width = (positive(settings, name, path) for name in ("count", "neighbours", "width"))
    components = None if settings.get("components") is None else positive(settings, "components", path)
    network = f"{prefix}autoencoder."
    autoencoder = autoencoder_from(settings, tensors, network, path=path)
    own = {name: value for name, value in tensors.items() if name.startswith(prefix) and not name.startswith(network)}
    features, training = 16 * width, own.get(f"{prefix}labels", torch.empty(0)).numel()
    shapes: dict[str, tuple[int, ...]] = {"latents": (training, components or features), "labels": (training,)}
    if components:
        shapes |= {"pca_mean": (features,), "pca_axes": (features, components)}
    check_tensors(path, own, {prefix + name: shape for name, shape in shapes.items()})
    for name in shapes:
        if name != "labels":
            check_numbers(path, name, own[prefix + name])
    labels = own[f"{prefix}labels"]
    if labels.dtype != torch.int64 or training == 0 or not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise InputError(f"{path} holds labels that are no strata from 0 to {count - 1}", "learn it again")
    pca = Pca(own[f"{prefix}pca_mean"], own[f"{prefix}pca_axes"]) if components else None
    return Strata(autoencoder, own[f"{prefix}latents"], labels, count=count, neighbours=neighbours, pca=pca)
