"""The randomness of the randomised defences: each image's own, whatever batch it comes in, and the same for a seed.

A defence that draws for a batch at once gives an image other draws in another batch. Here each image has a generator
that is seeded from the seed, the defence's name and the image itself, so that a set can be transformed in pieces of
any size, and two images of a set hardly ever share a draw.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from quasinat.arrays import Images

Seed = int | None
"""A number; or `None`, with which each call draws another one from PyTorch's global CPU generator."""


def resolved(seed: Seed) -> int:
    """The seed itself; of `None`, a number from PyTorch's global CPU generator (which `Expectation` seeds)."""
    return int(torch.randint(2**62, ())) if seed is None else seed


def generators(images: Images, seed: Seed, name: str) -> list[torch.Generator]:
    """One CPU generator an image, a function of the seed, the name and that image's values alone.

    Args:
        images: `B C H W`, on any device.
        seed: see `Seed`.
        name: of what draws, so that two defences in a row do not draw the same numbers.
    """
    start = f"{resolved(seed)}\0{name}\0".encode()
    made = []
    for image in images.detach().to("cpu", torch.float32).contiguous():
        total = hashlib.sha256(start)
        total.update(image.numpy().data)
        made.append(torch.Generator().manual_seed(int.from_bytes(total.digest()[:8], "little") >> 1))
    return made


def drawn(images: Images, seed: Seed, name: str, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    """`draw(generator)` of each image, stacked, on the images' device; an image's shape of an empty batch.

    For example `drawn(images, seed, "tvm", lambda g: torch.rand(images.shape[1:], generator=g))`.
    """
    parts = [draw(generator) for generator in generators(images, seed, name)]
    if not parts:
        return draw(torch.Generator())[None][:0].to(images.device)
    return torch.stack(parts).to(images.device)
