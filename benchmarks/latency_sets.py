"""What benchmarks/latency.py measures on: of each size images, a layer learned on others, and a network that judges."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from quasinat.batches import project
from quasinat.data import cifar10
from quasinat.data.folder import class_folders, stack_images
from quasinat.data.imagenet import imagenet
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import load_classifier, load_mobilenet, save_classifier, vgg
from quasinat.strata import fit_strata, learn_dictionaries
from quasinat.training import train_classifier

SPARSITY, COUNT = 0.2, 4
EPOCHS = 12  # of the small network


@dataclass(frozen=True, eq=False)
class Part:
    """One size: test images `N 3 side side` with labels, the layer, the network, and a batch for the throughput."""

    side: int
    name: str
    images: Tensor
    labels: Tensor
    layer: SparseTransformationLayer
    network: nn.Module
    batch: int
    root: Path


def parts(root: Path, weights: Path | None, work: Path, share: float) -> dict[int, Callable[[], Part]]:
    """The parts by size, each made when it is asked for; what is learned is kept in `work`.

    Args:
        root: the folder of the image sets.
        weights: a MobileNetV2's; without them there is no part of 224 px.
        work: a folder.
        share: of all images, below one for a trial.
    """
    made: dict[int, Callable[[], Part]] = {32: lambda: _cifar(root, work, share), 64: lambda: _ten(root, work, share)}
    if weights is not None:
        made[224] = lambda: _thousand(root, weights, work, share)
    return made


def some(images: int, share: float) -> int:
    """So many of the images, ten at least."""
    return max(10, round(images * share))


def _cifar(root: Path, work: Path, share: float) -> Part:
    images, labels = cifar10(root)
    learned = some(5000, share)
    images, labels = images[:learned], labels[:learned]
    layer = _layer(work / "32.stl", images, images_each=some(300, share))
    network = _network(work / "32.safetensors", layer, images, labels)
    test, truth = cifar10(root, split="test")
    count = some(1000, share)
    return Part(32, "CIFAR-10", test[:count], truth[:count], layer, network, 64, root)


def _ten(root: Path, work: Path, share: float) -> Part:
    count = some(200, share)
    images, labels = _pictures(root / "imagenet10" / "train", some(200, share), 64)
    test, truth = _pictures(root / "imagenet10" / "val", max(1, count // 10), 64)
    layer = _layer(work / "64.stl", images, images_each=some(150, share))
    network = _network(work / "64.safetensors", layer, images, labels)
    return Part(64, "ten classes of ImageNet", test, truth, layer, network, 16, root)


def _pictures(folder: Path, each: int, side: int) -> tuple[Tensor, Tensor]:
    """The first so many images of each class at so many pixels, with their labels."""
    return stack_images([paths[:each] for paths in class_folders(folder).values()], side, "rgb")


def _thousand(root: Path, weights: Path, work: Path, share: float) -> Part:
    count = some(100, share)
    training = root / "imagenet10" / "train"
    data = imagenet(root / "imagenet-val", training=training, training_size=32, train=10, test=count)
    layer = _layer(work / "224.stl", _pictures(training, some(30, share), 96)[0], images_each=some(60, share))
    order = torch.randperm(len(data.test_images), generator=torch.Generator().manual_seed(0))[:count]
    network = load_mobilenet(weights)
    return Part(224, "ImageNet", data.test_images[order], data.test_labels[order], layer, network, 2, root)


def _layer(path: Path, images: Tensor, *, images_each: int) -> SparseTransformationLayer:
    """Four strata, each with 64 filters of 8 x 8."""
    if not path.is_file():
        strata = fit_strata(images, count=COUNT, neighbours=5, seed=0)
        learned = learn_dictionaries(images, strata, filters=64, size=8, sparsity=SPARSITY, images_each=images_each)
        SparseTransformationLayer(strata, learned, SPARSITY).save(path)
    return SparseTransformationLayer.load(path)


def _network(path: Path, layer: SparseTransformationLayer, images: Tensor, labels: Tensor) -> nn.Module:
    """A small VGG trained on T(x)."""
    if not path.is_file():
        network = vgg("vgg-small", classes=10)
        train_classifier(network, project(layer, images), labels, epochs=EPOCHS)
        save_classifier(path, network, {})
    return load_classifier(path)
