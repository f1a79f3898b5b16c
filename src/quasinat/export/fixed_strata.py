"""The stratum of each image in plain tensor operations: the nearest training latents by a product, their vote."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, PerImageInt
from quasinat.strata import Strata
from quasinat.strata.autoencoder import SIDE
from quasinat.strata.neighbours import vote


class FixedStrata(nn.Module):
    """What `Strata` says of images of one size, without its index.

    Two training latents may be so nearly at the same distance that rounding decides between them.

    Args:
        strata: whose encoder is shared, and whose training latents are copied.
        height, width: of the images.
    """

    rows: Tensor
    columns: Tensor
    latents: Tensor
    norms: Tensor
    labels: Tensor
    centre: Tensor
    axes: Tensor | None

    def __init__(self, strata: Strata, height: int, width: int) -> None:
        super().__init__()
        self.encoder = strata.autoencoder.encoder
        self.count, self.neighbours = strata.count, min(strata.neighbours, len(strata.labels))
        self.small = (height, width) == (SIDE, SIDE)
        self.register_buffer("rows", _to_side(height, strata.latents))
        self.register_buffer("columns", _to_side(width, strata.latents).T.contiguous())
        # About their mean the latents are small, and their products lose less to rounding.
        about = strata.latents.mean(0)
        centred = strata.latents - about
        pca = strata.pca
        self.register_buffer("latents", centred.T.contiguous())
        self.register_buffer("norms", centred.square().sum(1))
        self.register_buffer("labels", strata.labels)
        self.register_buffer("axes", pca.axes if pca else None)
        self.register_buffer("centre", about + pca.mean @ pca.axes if pca else about)

    def forward(self, images: Images) -> PerImageInt:
        """The stratum of each image `B C H W`."""
        small = images if self.small else self.rows @ images @ self.columns
        latents = self.encoder(small).flatten(1)
        placed = (latents if self.axes is None else latents @ self.axes) - self.centre
        distances = self.norms - 2 * placed @ self.latents  # less the image's own norm, which is the same for all
        nearest = distances.topk(self.neighbours, largest=False).indices
        return vote(self.labels, nearest, self.count)[0]


def _to_side(length: int, like: Tensor) -> Tensor:
    """The matrix `32 length` that brings one axis to 32 pixels as `small_copy` does."""
    lines = torch.eye(length, dtype=torch.float64)[None, None]
    return F.interpolate(lines, (SIDE, length), mode="bilinear", antialias=True, align_corners=False)[0, 0].to(like)
