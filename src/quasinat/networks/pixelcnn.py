"""An autoregressive density of 8-bit images: a gated PixelCNN with a mixture of discretised logistics.

Pixels come row by row, from left to right, and the channels of a pixel in their order. The network sees the pixels
before; the channels of one pixel are tied to each other by the mixture itself (`logistic_mixture.py`).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images, PerImage
from quasinat.artefact import Card
from quasinat.networks.logistic_mixture import joint_log_probability, mixture_from, parameter_count

DILATIONS = (1, 2, 4)
Features = Float[Tensor, "batch features height width"]
Parameters = Float[Tensor, "batch parameters height width"]


def gated(values: Float[Tensor, "..."], axis: int) -> Float[Tensor, "..."]:
    """One half times the sigmoid of the other."""
    return F.glu(values, axis)


class PixelCNN(nn.Module):
    """Images `B C H W` in [0, 1] to the parameters of each pixel's conditional density.

    Two streams (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", section 2.2): a
    vertical one that sees the rows above, widening, and a horizontal one that sees what is to the left in the row, and
    the vertical one's features. Together they see everything before a pixel that is within their reach, with no blind
    spot, and nothing after it.

    What differs from PixelCNN++ (Salimans et al. 2017), and why: the kernels are dilated (1, 2, 4, 1, 2, 4 ...) where
    it samples down and up again, so that a decoder can keep the activations of earlier pixels; and it is far smaller,
    to be trained on a processor. The mixture is its own.

    Args:
        channels: C of the images, 1 or more.
        width: features of either stream.
        blocks: gated residual layers of either stream.
        mixtures: logistics of each conditional.
    """

    card: Card

    def __init__(self, channels: int, *, width: int = 32, blocks: int = 6, mixtures: int = 5) -> None:
        super().__init__()
        self.channels, self.width, self.blocks, self.mixtures = channels, width, blocks, mixtures
        self.card = {}
        self.dilations = [DILATIONS[index % len(DILATIONS)] for index in range(blocks)]
        self.above = nn.Conv2d(channels + 1, width, (3, 5))
        self.left = nn.Conv2d(channels + 1, width, (1, 3))
        self.down = nn.Conv2d(width, width, 1)
        self.vertical = nn.ModuleList(nn.Conv2d(width, 2 * width, (2, 3), dilation=d) for d in self.dilations)
        self.horizontal = nn.ModuleList(nn.Conv2d(width, 2 * width, (1, 2), dilation=d) for d in self.dilations)
        self.crossing = nn.ModuleList(nn.Conv2d(width, 2 * width, 1) for _ in self.dilations)
        self.hidden = nn.Conv2d(width, width, 1)
        self.head = nn.Conv2d(width, mixtures * parameter_count(channels), 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Images) -> Parameters:
        """The parameters of every pixel's density, given the pixels before it."""
        seen = with_frame(images)
        v = self.above(F.pad(seen, (2, 2, 3, 0))[:, :, :-1])
        h = self.left(F.pad(seen, (3, 0))[..., :-1]) + self.down(v)
        for d, vertical, horizontal, crossing in zip(
            self.dilations, self.vertical, self.horizontal, self.crossing, strict=True
        ):
            v = v + gated(vertical(F.pad(v, (d, d, d, 0))), 1)
            h = h + gated(horizontal(F.pad(h, (d, 0))) + crossing(v), 1)
        parameters: Parameters = self.head(F.elu(self.hidden(F.elu(h))))
        return parameters

    def log_likelihood(self, images: Images) -> PerImage:
        """log2 p(x) of each image, rounded to 8 bits, in bits; divide by -C H W for bits a dimension."""
        levels = (255 * images).round()
        mixture = mixture_from(self(levels / 255).permute(0, 2, 3, 1), self.channels)
        each = joint_log_probability(mixture, levels.permute(0, 2, 3, 1))
        return each.flatten(1).sum(1) / torch.log(torch.tensor(2.0, dtype=each.dtype, device=each.device))

    def settings(self) -> dict[str, Any]:
        """What it takes to build the network again."""
        return {name: getattr(self, name) for name in ("channels", "width", "blocks", "mixtures")}


def with_frame(images: Images) -> Features:
    """Values in [-1, 1] and a channel of ones, which tells the image from the zeros around it."""
    return torch.cat([2 * images - 1, torch.ones_like(images[:, :1])], 1)
