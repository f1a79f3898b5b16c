"""The mean and deviation of the training images, as the first layer of a network: models take images in [0, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images


class Normalise(nn.Module):
    """(x - mean) / deviation per channel; the two are buffers and travel with the weights.

    Args:
        channels: of the images.

    Examples:
        >>> import torch
        >>> from quasinat.networks import Normalise
        >>> first = Normalise(1)
        >>> first.fit(torch.tensor([0.2, 0.6]).view(2, 1, 1, 1))
        >>> round(float(first.mean), 2), round(float(first(torch.full((1, 1, 1, 1), 0.4))), 2)
        (0.4, 0.0)
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((channels, 1, 1), 0.5))
        self.register_buffer("deviation", torch.full((channels, 1, 1), 0.25))

    def fit(self, images: Images) -> None:
        """Takes mean and deviation from training images, `B C H W`."""
        self.mean.copy_(images.mean((0, 2, 3)).view_as(self.mean))
        self.deviation.copy_(images.std((0, 2, 3)).clamp_min(1e-3).view_as(self.deviation))

    def forward(self, images: Images) -> Float[Tensor, "batch channels height width"]:
        return (images - self.mean) / self.deviation
