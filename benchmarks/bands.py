"""Through which of the layer's two bands an attack comes: the one that is sparse-coded, or the one that passes.

    python benchmarks/bands.py TABLES/cifar10-small --data cifar10 --root DIR --out results/bands/cifar10.json
    python benchmarks/bands.py TABLES/imagenet-small --data imagenet --root DIR --out results/bands/imagenet.json

From the folder of a run of the tables: its vanilla classifier, and its universal layer in front of it. The layer splits
x = low + high, passes the low band and codes the high one, T(x) = low(x) + C(high(x)) (before it is brought to [0, 1]).
FGSM on the classifier alone moves both bands; here each is given back its clean content in turn. What the attack does
through the low band alone, no coding of the high one can undo.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat import Dissimilarity, SparseTransformationLayer, attacks
from quasinat.evaluation import accuracy_of
from quasinat.experiments.table_images import image_set_named
from quasinat.experiments.table_settings import PRESETS
from quasinat.files import write_json
from quasinat.networks import load_classifier
from quasinat.sparse_coding import SparseCodingProblem, solve
from quasinat.strata import split_bands

BUDGETS = (0.04, 0.08)  # L2-dissimilarity
LAMBDAS = (0.1, 0.2, 0.4, 0.8)
BATCH = 20


def in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """A function of images, of a few at a time."""
    return torch.cat([function(part) for part in images.split(BATCH)])


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """The accuracy on images brought to [0, 1], with its 95 % interval."""
    found = accuracy_of(in_batches(lambda part: network(part).argmax(1), images.clamp(0, 1)) == labels)
    return {"value": found.value, "low": found.low, "high": found.high}


def attacked(network: nn.Module, images: Tensor, labels: Tensor, budget: float) -> Tensor:
    """FGSM on the network alone, at an L2-dissimilarity."""
    parts = zip(images.split(BATCH), labels.split(BATCH), strict=True)
    return torch.cat([attacks.fgsm(network, x, y, budget=Dissimilarity(budget)).images for x, y in parts])


def opened(
    folder: Path, data: str, root: Path, count: int
) -> tuple[nn.Module, SparseTransformationLayer, Tensor, Tensor]:
    """The vanilla classifier and the universal layer of a run of the tables; test images and their labels."""
    found = image_set_named(data, root, replace(PRESETS["small"], test=count))
    network = load_classifier(folder / "networks" / "vanilla.safetensors").eval()
    layer = SparseTransformationLayer.load(folder / "learned" / "universal-layer.safetensors")
    return network, layer, found.test_images, found.test_labels


def moved(clean: Tensor, other: Tensor, images: Tensor) -> float:
    """The mean of ||other - clean|| / ||x||: how much of the attack is in a band."""
    lengths = (other - clean).flatten(1).norm(dim=1) / images.flatten(1).norm(dim=1)
    return round(lengths.mean().item(), 4)


def bands(network: nn.Module, layer: SparseTransformationLayer, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """The accuracies with either band attacked, before the layer and behind it, and what is left of the attack."""

    def judged(made: Tensor) -> dict[str, float]:
        return accuracy(network, made, labels)

    def low_of(images: Tensor) -> Tensor:
        return in_batches(lambda part: split_bands(part, layer.split)[0], images)

    def coded(high: Tensor, sparsity: float) -> Tensor:
        def code(part: Tensor) -> Tensor:
            problem = SparseCodingProblem(part, layer.filters[0], sparsity)
            return solve(problem, layer.solver, codes="sparse").reconstruction

        return in_batches(code, high)

    low = low_of(images)
    high = images - low
    codes_of_clean = {sparsity: coded(high, sparsity) for sparsity in LAMBDAS}
    found: dict[str, Any] = {
        "clean": judged(images),
        "clean, behind the layer": {f"{s:g}": judged(low + codes) for s, codes in codes_of_clean.items()},
        "attacks": {},
    }
    for budget in BUDGETS:
        made = attacked(network, images, labels, budget)
        low_attacked = low_of(made)
        high_attacked = made - low_attacked
        behind = {}
        for sparsity, codes in codes_of_clean.items():
            codes_attacked = coded(high_attacked, sparsity)
            behind[f"{sparsity:g}"] = {
                "both": judged(low_attacked + codes_attacked),
                "low": judged(low_attacked + codes),
                "high": judged(low + codes_attacked),
                "moved, high": moved(codes, codes_attacked, images),
            }
        found["attacks"][f"fgsm-{budget:g}"] = {
            "both": judged(made),
            "low": judged(low_attacked + high),
            "high": judged(low + high_attacked),
            "moved, low": moved(low, low_attacked, images),
            "moved, high": moved(high, high_attacked, images),
            "behind the layer": behind,
        }
    return found


def main() -> None:
    """Reads the command line, and writes the file."""
    from sparse_coding import machine  # of this folder; the tests, which call `bands`, have a package of that name

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    network, layer, images, labels = opened(given.folder, given.data, given.root, given.images)
    found = bands(network, layer, images, labels)
    size = list(images.shape[1:])
    write_json(given.out, {"data": given.data, "images": len(labels), "size": size, "machine": machine()} | found)


if __name__ == "__main__":
    main()
