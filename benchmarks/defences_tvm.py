"""Total-variation minimisation: seconds an image at 224 px, against ART's `TotalVarMin`; prints the numbers.

    python benchmarks/defences_tvm.py --root DIR

DIR holds `imagenet-val`, a folder of class folders; without it the built-in photographs serve. One thread for both,
then two, in turns in one process; a figure is the median over the rounds. The processor's seconds are given beside the
clock's.

The two minimise different sums. ART's is the norm of the misfit and the norms of whole rows' and columns' differences
(Guo et al. print it so); ours is `total_variation`'s, at the weight that we run with. So each result is judged by both
sums, for the same images and masks, and "at most theirs" says for how many images ours is not higher. Both are timed
with the drawing of a mask. In the case "ART's defaults", and where the row says so, our weight is chosen for ART's
sum; else it is the authors', which ART has as its lambda.
"""

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defences_quilting import some_of
from quasinat.data.photographs import PHOTOGRAPHS, photograph
from quasinat.defences.total_variation import TotalVariation, kept_values, objective

IMAGES, SIDE, GOAL = 8, 224, 50
THREADS = (1, 2)
REST = 0.3  # seconds before a call, until the threads that a library lets spin after the last one sleep
REPEATS = 20  # of ours, whose call is short beside ART's
CASES: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "ART's defaults": (
        {"prob": 0.3, "lamb": 0.5, "norm": 2, "max_iter": 10},
        {"4 steps": {"weight": 0.3, "steps": 4}},
    ),
    "Guo's rate and weight": (
        {"prob": 0.5, "lamb": 0.03, "norm": 2, "max_iter": 10},
        {
            "16 steps, for ART's sum": {"weight": 0.0005, "steps": 16},
            "4 steps": {"weight": 0.03, "steps": 4},
            "defaults": {"weight": 0.03},
        },
    ),
}


def images_of(root: Path | None) -> tuple[Tensor, str]:
    """Images of 224 px, and where they are from."""
    if root is not None and (root / "imagenet-val").is_dir():
        return some_of(root / "imagenet-val", IMAGES, SIDE), "ImageNet validation images"
    some = [photograph(name, colour=True, size=SIDE) for name in PHOTOGRAPHS[:IMAGES]]
    return torch.stack(some), "the built-in photographs"


def by_art(images: Tensor, kept: Tensor, options: dict[str, Any]) -> Tensor:
    """ART's minimiser with this mask, after the draw of one as it draws its own."""
    from art.defences.preprocessor import TotalVarMin

    defence = TotalVarMin(**options)

    def one(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        np.random.binomial(1, options["prob"], image.shape)
        return defence._minimize(image.copy(), mask)

    pairs = zip(images.permute(0, 2, 3, 1).numpy(), kept.permute(0, 2, 3, 1).numpy(), strict=True)
    return torch.from_numpy(np.stack([one(*pair) for pair in pairs])).movedim(3, 1)


def art_objective(result: Tensor, images: Tensor, kept: Tensor, options: dict[str, Any]) -> Tensor:
    """ART's own function, summed over the channels that it minimises one by one."""
    from art.defences.preprocessor import TotalVarMin

    def one(z: Tensor, x: Tensor, m: Tensor) -> float:
        arrays = (tensor.double().numpy() for tensor in (z.flatten(), x, m))
        return float(TotalVarMin._loss_func(*arrays, options["norm"], options["lamb"]))

    each = zip(result.flatten(0, 1), images.flatten(0, 1), kept.flatten(0, 1), strict=True)
    return torch.tensor([one(*planes) for planes in each], dtype=torch.float64).view(len(images), -1).sum(1)


def timed(call: Callable[[], Tensor], count: int, repeats: int) -> tuple[Tensor, float, float]:
    """What the call gives, and the clock's and the processor's seconds for each of `count` images."""
    time.sleep(REST)
    start, used = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        result = call()
    images = repeats * count
    return result, (time.perf_counter() - start) / images, (time.process_time() - used) / images


def compared(images: Tensor, art: dict[str, Any], ours: dict[str, dict[str, Any]], rounds: int) -> dict[str, Any]:
    """One case: both run on the same images and masks, both judged by both sums."""
    drop = 1 - art["prob"]
    kept = kept_values(images, drop, 0)
    modules = {name: TotalVariation(drop=drop, **options) for name, options in ours.items()}
    calls: dict[str, Callable[[], Tensor]] = {"ART": lambda: by_art(images, kept, art)}
    calls |= {name: lambda module=module: module(images) for name, module in modules.items()}
    clock: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            results[name], seconds, used = timed(call, len(images), 1 if name == "ART" else REPEATS)
            clock[name].append(seconds)
            processor[name].append(used)
    rows: dict[str, Any] = {}
    for name, module in modules.items():
        sums = {
            "ART's sum": [art_objective(results[who], images, kept, art) for who in ("ART", name)],
            "our sum": [objective(results[who], images, kept, module.weight) for who in ("ART", name)],
        }
        ratios = [theirs / own for theirs, own in zip(clock["ART"], clock[name], strict=True)]
        rows[name] = {
            "options": {"drop": drop, **ours[name]},
            "seconds": statistics.median(clock[name]),
            "processor seconds": statistics.median(processor[name]),
            "times faster": statistics.median(ratios),
            **{
                what: {
                    "ART": float(theirs.mean()),
                    "ours": float(own.mean()),
                    "at most theirs": int((own <= theirs).sum()),
                }
                for what, (theirs, own) in sums.items()
            },
        }
    seconds, used = statistics.median(clock["ART"]), statistics.median(processor["ART"])
    return {"ART": {"options": art, "seconds": seconds, "processor seconds": used}, "ours": rows}


def measure(root: Path | None, rounds: int = 5) -> dict[str, Any]:
    """All of it, with one thread and with two; the number of threads is put back."""
    from threadpoolctl import threadpool_limits

    importlib.import_module("art.defences.preprocessor")  # its libraries have to be there before they are limited
    before = torch.get_num_threads()
    images, source = images_of(root)
    result: dict[str, Any] = {
        "load before": os.getloadavg()[0],
        "images": {"count": len(images), "source": source, "side": SIDE},
        "goal": GOAL,
        "cases": {},
    }
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                for name, (art, ours) in CASES.items():
                    result["cases"][f"{name}, threads: {threads}"] = compared(images, art, ours, rounds)
    finally:
        torch.set_num_threads(before)
    result["load after"] = os.getloadavg()[0]
    return result


def main() -> None:
    """Prints the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.root, arguments.rounds), indent=1))


if __name__ == "__main__":
    main()
