"""What it buys at 224 px to code the low band too, on coarser grids, where the layer passes it as it is.

    python benchmarks/pyramid.py TABLES/imagenet-small --root DIR --out results/bands/pyramid.json

From the folder of a run of table 7: its vanilla classifier, and its universal layer's filters. A level splits
x = low + high and codes the high band with its lambda. The next one shrinks the low band, is applied to that, and what
it changed there is enlarged and added to the low band. With one level it is the layer. A perturbation that is as strong
at every frequency is weaker on a coarser grid, and an image's contrast is not, so that lambda may fall level by level.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bands import BATCH, accuracy, attacked, opened
from quasinat import SparseTransformationLayer
from quasinat.files import write_json
from quasinat.sparse_coding import SparseCodingProblem, solve
from quasinat.strata import split_bands

BUDGETS = (0.0022, 0.04)  # L2-dissimilarity: FGSM-0.04 as table 7 matches it to the paper's, and as it is stated
LEVELS = (
    (1, (0.1,)),
    (2, (0.1, 0.1, 0.1)),
    (1, (0.2,)),
    (2, (0.2, 0.2)),
    (2, (0.2, 0.1, 0.05)),
    (4, (0.2, 0.1)),
    (1, (0.4,)),
)


def pyramid(layer: SparseTransformationLayer, images: Tensor, factor: int, sparsities: Sequence[float]) -> Tensor:
    """The images with every level's high band coded; each level is `factor` times smaller than the one before it."""
    low, high = split_bands(images, layer.split)
    problem = SparseCodingProblem(high, layer.filters[0], sparsities[0])
    coded = solve(problem, layer.solver, codes="sparse").reconstruction
    if len(sparsities) > 1:
        small = interpolate(low, scale_factor=1 / factor, mode="area")
        changed = pyramid(layer, small, factor, sparsities[1:]) - small
        low = low + interpolate(changed, size=low.shape[-2:], mode="bicubic", align_corners=False)
    return low + coded


def measured(network: nn.Module, layer: SparseTransformationLayer, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """The accuracies on the images as they are and behind each pyramid, clean and under FGSM on the network alone."""
    seen = {"clean": images}
    seen |= {f"fgsm-{budget:g}": attacked(network, images, labels, budget) for budget in BUDGETS}
    rows: list[dict[str, Any]] = [
        {"factor": 1, "lambda": [], "accuracy": {name: accuracy(network, made, labels) for name, made in seen.items()}}
    ]
    for factor, sparsities in LEVELS:
        found = {}
        for name, made in seen.items():
            projected = torch.cat([pyramid(layer, part, factor, sparsities) for part in made.split(BATCH)])
            found[name] = accuracy(network, projected, labels)
        rows.append({"factor": factor, "lambda": list(sparsities), "accuracy": found})
        print(factor, sparsities, {name: round(100 * each["value"], 1) for name, each in found.items()}, flush=True)
    return {"images": len(labels), "size": list(images.shape[1:]), "rows": rows}


def main() -> None:
    """Reads the command line, and writes the file."""
    from sparse_coding import machine  # of this folder; the tests have a package of that name

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    network, layer, images, labels = opened(given.folder, "imagenet", given.root, given.images)
    write_json(given.out, {"machine": machine()} | measured(network, layer, images, labels))


if __name__ == "__main__":
    main()
