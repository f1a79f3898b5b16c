"""CIFAR-10 with a few images a batch, in the official layout."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from quasinat.data import photographs

from .official_batch import array, batch, integers

PER_BATCH = 10


def write_batch(root: Path, name: str, images: Tensor) -> None:
    """One batch of 8-bit images."""
    content = batch(
        array(images.numpy().tobytes(), (len(images), 3072)), integers([i % 10 for i in range(len(images))])
    )
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def tiny_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Writes fifty training and ten test images below `root`; the training images, 8-bit."""
    monkeypatch.setattr(sys.modules["quasinat.data.cifar10"], "_PER_BATCH", PER_BATCH)
    dataset = photographs(32, colour=True, train_per_class=5, test_per_class=1)
    train, test = ((images * 255).round().to(torch.uint8) for images in (dataset.train_images, dataset.test_images))
    for number, part in enumerate(train.split(PER_BATCH), 1):
        write_batch(root, f"data_batch_{number}", part)
    write_batch(root, "test_batch", test)
    return train
