"""PixelDefend: images a second with kept activations, against a full forward pass for every pixel; prints the numbers.

    python benchmarks/defences_pixel_defend.py [--root DIR]

One thread for both, in turns in one process; a figure is the median over the rounds. The naive loop is a pass over the
whole image for each of its pixels, all of equal cost: a few of them are timed and multiplied. Its choice of levels is
left out, so that it is favoured. DIR holds `cifar-10-batches-py`; without it the built-in photographs serve. The
network has the default size and random weights, which change no cost.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from quasinat.data import cifar10, photographs
from quasinat.defences import PixelDefend
from quasinat.networks.pixelcnn import PixelCNN

SIDE, BATCH, PASSES, GOAL = 32, 64, 5, 20


def measure(root: Path | None, rounds: int = 3) -> dict[str, Any]:
    """All of it, with one thread; the number of threads is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if root is not None and (root / "cifar-10-batches-py").is_dir():
            images, source = cifar10(root, "test")[0][:BATCH], "CIFAR-10 test images"
        else:
            images = photographs(SIDE, colour=True, train_per_class=10, test_per_class=7).test_images[:BATCH]
            source = "the built-in photographs"
        torch.manual_seed(0)
        network = PixelCNN(images.shape[1]).double().eval()
        defence = PixelDefend(network)
        kept: list[float] = []
        naive: list[float] = []
        for _ in range(rounds):
            begin = time.perf_counter()
            defence(images)
            kept.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            with torch.no_grad():
                for _ in range(PASSES):
                    network(images.double())
            naive.append((time.perf_counter() - begin) / PASSES * SIDE * SIDE)
        ours, theirs = statistics.median(kept), statistics.median(naive)
        return {
            "threads": 1,
            "load after": os.getloadavg()[0],
            "images": {"count": len(images), "source": source, "side": SIDE},
            "network": network.settings(),
            "goal": GOAL,
            "images a second": len(images) / ours,
            "naive, images a second": len(images) / theirs,
            "times faster": theirs / ours,
        }
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """Prints the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.root, arguments.rounds), indent=1))


if __name__ == "__main__":
    main()
