"""A module that sees a few images at a time, for tools that hand over whole sets at once."""

import torch
from torch import Tensor, nn

from quasinat.errors import UsageError


class Chunked(nn.Module):
    """The same module, batch by batch; outputs and gradients are those of the whole.

    Args:
        module: images to anything with a row for each, none of which depends on the other images.
        size: images at a time.

    Raises:
        UsageError: a size below 1.
    """

    def __init__(self, module: nn.Module, size: int = 64) -> None:
        super().__init__()
        if size < 1:
            raise UsageError(f"chunks of {size} images", "give 1 or more")
        self.module, self.size = module, size

    def forward(self, images: Tensor) -> Tensor:
        """`module(images)`."""
        return torch.cat([self.module(part) for part in images.split(self.size)])
