"""A PixelCNN's conditionals pixel by pixel, each for the price of one pixel: what earlier ones left is kept.

The vertical stream of a row depends on the rows above only, and is computed when the row begins, all of it at once. The
horizontal stream of a pixel needs the pixels to its left, whose features are kept: a pixel costs a few products of a
vector with a matrix for each layer, instead of a pass over the whole image.
"""

from collections import deque

import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat.networks.pixelcnn import PixelCNN, gated, with_frame


class CachedDecoder:
    """Hands out the parameters of one pixel after another of a batch of images, row by row from left to right.

    For each row `begin_row()`, then for each column `parameters(column)` followed by `put(column, values)`.

    Args:
        network: in evaluation mode.
        like: `B C H W`, the images' shape, device and type.
    """

    def __init__(self, network: PixelCNN, like: Tensor) -> None:
        self.network, (self.batch, self.channels, _, self.columns) = network, like.shape
        empty = like.new_zeros(self.batch, self.channels + 1, 1, self.columns)
        self.rows = deque([empty] * 3, maxlen=3)  # of the image, with the channel of ones
        blank = like.new_zeros(self.batch, network.width, 1, self.columns)
        self.above = [deque([blank] * d, maxlen=d) for d in network.dilations]  # of each vertical layer's input
        self.current = empty
        self.left = _matrix(network.left)
        self.across = [_matrix(layer) for layer in network.horizontal]
        self.hidden, self.head = _matrix(network.hidden), _matrix(network.head)
        self.pixels = like.new_zeros(self.columns + 3, self.batch, self.channels + 1)
        self.kept = [like.new_zeros(self.columns + d, self.batch, network.width) for d in network.dilations]

    def begin_row(self) -> None:
        """The vertical stream of the next row, and what it hands to the horizontal one."""
        network = self.network
        v = network.above(F.pad(torch.cat(list(self.rows), 2), (2, 2)))
        self.start = _by_column(network.down(v))
        self.crossing = []
        for d, earlier, vertical, crossing in zip(
            network.dilations, self.above, network.vertical, network.crossing, strict=True
        ):
            both = F.pad(torch.cat([earlier[0], v], 2), (d, d))
            earlier.append(v)
            v = v + gated(F.conv2d(both, vertical.weight, vertical.bias, dilation=(1, d)), 1)  # type: ignore[arg-type]
            self.crossing.append(_by_column(crossing(v)))
        self.current = torch.zeros_like(self.rows[0])
        self.rows.append(self.current)  # filled as the row goes on
        self.pixels.zero_()
        for kept in self.kept:
            kept.zero_()

    def parameters(self, column: int) -> Tensor:
        """Of the pixel in this column, `B P`."""
        weight, bias = self.left
        seen = self.pixels[column : column + 3].transpose(0, 1).reshape(self.batch, -1)
        h = torch.addmm(bias + self.start[column], seen, weight)
        for d, kept, crossing, (weight, bias) in zip(
            self.network.dilations, self.kept, self.crossing, self.across, strict=True
        ):
            kept[column + d] = h
            both = torch.cat([kept[column], h], 1)
            h = h + gated(torch.addmm(bias + crossing[column], both, weight), 1)
        weight, bias = self.hidden
        h = torch.addmm(bias, F.elu(h), weight)
        weight, bias = self.head
        return torch.addmm(bias, F.elu(h), weight)

    def put(self, column: int, values: Tensor) -> None:
        """The pixel's values, `B C` in [0, 1], which the next ones see."""
        framed = with_frame(values[:, :, None, None])
        self.current[..., column : column + 1] = framed
        self.pixels[column + 3] = framed[:, :, 0, 0]


def _matrix(layer: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """A convolution over one row as a matrix for the pixels it sees, one after another, and its bias."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    return weight[:, :, 0].permute(2, 1, 0).reshape(-1, weight.shape[0]).contiguous(), bias


def _by_column(row: Tensor) -> Tensor:
    """`B F 1 W` as `W B F`."""
    return row[:, :, 0].permute(2, 0, 1).contiguous()
