"""The images and filters of the benchmarks: real sets where they are named, else the built-in photographs."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from quasinat.data import cifar10
from quasinat.data.image_files import pixels, read_picture
from quasinat.data.photographs import PHOTOGRAPHS, photograph
from quasinat.sparse_coding import learn_dictionary, tikhonov_split

SPARSITY = 0.2


def cifar_test(root: Path | None) -> Tensor | None:
    """The CIFAR-10 test images, `10000 3 32 32`, or `None` where the set is not there."""
    if root is None or not (root / "cifar-10-batches-py").is_dir():
        return None
    return cifar10(root, split="test")[0]


def of_size(size: int, count: int, root: Path | None) -> tuple[Tensor, str]:
    """`count` colour images of `size` pixels, and the name of where they come from."""
    cifar = cifar_test(root) if size == 32 else None
    if cifar is not None:
        return cifar[:count].contiguous(), "CIFAR-10 test"
    folder = None if root is None else root / "imagenet-val"
    files = sorted(folder.rglob("*.[jJ][pP]*[gG]")) if folder and folder.is_dir() else []
    if files:
        chosen = [files[i * len(files) // count] for i in range(count)]
        pictures = torch.stack([pixels(read_picture(path).convert("RGB")).float() / 255 for path in chosen])
        return resized(pictures, size), "ImageNet validation"
    pictures = torch.stack([photograph(PHOTOGRAPHS[i % 10], colour=True)[:, :224, :224] for i in range(count)])
    if size >= 224:
        return resized(pictures, size), "built-in photographs"
    shift = [(37 * i % (225 - size), 53 * i % (225 - size)) for i in range(count)]
    crops = [picture[:, y : y + size, x : x + size] for picture, (y, x) in zip(pictures, shift, strict=True)]
    return torch.stack(crops), "built-in photographs"


def resized(images: Tensor, size: int) -> Tensor:
    """Images of `size` pixels, antialiased."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)


def coded_band(images: Tensor) -> Tensor:
    """What is sparse-coded: the high-pass part of the Tikhonov split, as in the authors' recipe."""
    return tikhonov_split(images)[1].contiguous()


def filters_for(images: Tensor) -> Tensor:
    """64 filters of 8 x 8 learned from (crops of) the images."""
    size = min(images.shape[-1], 64)
    crops = images[:, :, :size, :size][:200]
    return learn_dictionary(crops, filters=64, size=8, sparsity=SPARSITY, passes=6, seed=0).filters


def mosaic(images: Tensor, size: int) -> Tensor:
    """The images laid side by side into one square picture of `size` pixels, `1 C size size`."""
    across = size // images.shape[-1]
    rows = images[: across * across].unflatten(0, (across, across))
    return rows.permute(2, 0, 3, 1, 4).reshape(1, images.shape[1], size, size)
