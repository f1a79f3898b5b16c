"""Image quilting: seconds an image, and the search in its patch bank against faiss's; prints the numbers.

    python benchmarks/defences_quilting.py --root DIR

DIR holds `imagenet10/train` and `imagenet-val`, folders of class folders: the bank is made of the one's images at
128 px, the other's are quilted at 224 px. Without them the built-in photographs serve, the bank from their left parts.
Two threads at most. What is compared runs in turns in one process; every figure is a median. The processor's seconds
are given beside the clock's, because they change less where others use the machine.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.data.image_files import crop_centre, in_mode, pixels, read_picture, scale_short_side
from quasinat.data.photographs import PHOTOGRAPHS, photograph
from quasinat.defences.patch_bank import PatchBank, build_patch_bank
from quasinat.defences.patch_search import PatchTree
from quasinat.defences.quilting import quilt

PATCHES, BANK_IMAGES, IMAGES, SIDE = 100_000, 2000, 8, 224
NOISE = 8 / 255  # of the images that are not 8-bit, as an attacker's are not
PROBES = (4, 16)  # of faiss's 1,024 cells
GOAL = 0.5  # seconds an image


def some_of(folder: Path, count: int, side: int) -> Tensor:
    """Images drawn from class folders, `N 3 side side` in [0, 1]."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    drawn = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[:count].tolist()
    pictures = [in_mode(read_picture(files[number]), files[number], "rgb") for number in drawn]
    return torch.stack([pixels(crop_centre(scale_short_side(one, side), side)) for one in pictures]).float() / 255


def bank_and_images(root: Path | None) -> tuple[PatchBank, Tensor, str]:
    """A bank, and images of 224 px that it was not made of."""
    if root is not None and (root / "imagenet10" / "train").is_dir() and (root / "imagenet-val").is_dir():
        bank = build_patch_bank(some_of(root / "imagenet10" / "train", BANK_IMAGES, 128), count=PATCHES)
        return bank, some_of(root / "imagenet-val", IMAGES, SIDE), f"{BANK_IMAGES} ImageNet images at 128 px"
    whole = torch.stack([photograph(name, colour=True, size=320)[:, :SIDE, :320] for name in PHOTOGRAPHS[:IMAGES]])
    return build_patch_bank(whole[..., :96], count=PATCHES), whole[..., 96 : 96 + SIDE], "the built-in photographs"


def windows(images: Tensor, size: int, stride: int) -> Tensor:
    """The patches that are sought, an image after another."""
    patches = images.unfold(2, size, stride).unfold(3, size, stride)
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(len(images), -1, images.shape[1] * size**2)


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """The median seconds of each call, of the clock and of the processor, over rounds in turns."""
    clock: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start, used = time.perf_counter(), time.process_time()
            call()
            clock[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    return {
        name: {"seconds": statistics.median(clock[name]), "processor seconds": statistics.median(processor[name])}
        for name in calls
    }


def distances(bank: PatchBank, sought: Tensor, places: Tensor) -> Tensor:
    """From each patch to what was found for it."""
    return torch.linalg.vector_norm(bank.values(places, torch.float64).flatten(1) - sought.double(), dim=1)


def quality(found: Tensor, least: Tensor) -> dict[str, float]:
    """How often a search finds a nearest patch, and how much farther its patches are."""
    # 1e-4: as far apart as the grid's rounding lets two distances be that the search takes for equal.
    ratios = found[least > 0] / least[least > 0]
    return {
        "recall": float((found <= least + 1e-4).double().mean()),
        "mean distance over the least": float(found.mean() / least.mean()),
        "largest ratio": float(ratios.amax()) if len(ratios) else 1.0,
    }


def searches(bank: PatchBank, images: Tensor, rounds: int) -> dict[str, Any]:
    """The search of one image's patches: ours, and faiss's flat and inverted-file indices."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    values = bank.patches.shape[1]
    stored = bank.values(torch.arange(len(bank)), torch.float32).flatten(1).numpy()
    flat, quantiser = faiss.IndexFlatL2(values), faiss.IndexFlatL2(values)
    flat.add(stored)
    inverted = faiss.IndexIVFFlat(quantiser, values, 1024)
    inverted.cp.niter = 10
    start = time.perf_counter()
    inverted.train(stored)
    inverted.add(stored)
    building = {"faiss inverted file": time.perf_counter() - start}
    start = time.perf_counter()
    PatchTree(bank.patches, (bank.channels, bank.size, bank.size))
    building["ours"] = time.perf_counter() - start

    def probing(sought: Tensor, probes: int) -> Tensor:
        inverted.nprobe = probes
        return torch.from_numpy(inverted.search(sought.numpy(), 1)[1])

    each = windows(images, bank.size, bank.size - 2)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "exact": lambda sought: bank.nearest(sought),
        "fast": lambda sought: bank.nearest(sought, search="fast"),
        "faiss flat": lambda sought: torch.from_numpy(flat.search(sought.numpy(), 1)[1]),
        **{f"faiss inverted file, {n} cells": lambda sought, n=n: probing(sought, n) for n in PROBES},
    }
    times = timed({name: lambda way=way: [way(one) for one in each] for name, way in ways.items()}, rounds)
    sought = each.flatten(0, 1)
    least = distances(bank, sought, ways["exact"](sought)[:, 0])
    rows = {}
    for name, way in ways.items():
        per_image = {key: value / len(images) for key, value in times[name].items()}
        rows[name] = {**per_image, **quality(distances(bank, sought, way(sought)[:, 0]), least)}
    return {"building, seconds": building, "mean least distance": float(least.mean()), "rows": rows}


def measure(root: Path | None, rounds: int = 5) -> dict[str, Any]:
    """All of it; at most two threads, whose number is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    try:
        start = time.perf_counter()
        bank, images, source = bank_and_images(root)
        result: dict[str, Any] = {
            "threads": torch.get_num_threads(),
            "load before": os.getloadavg()[0],
            "bank": {
                "patches": len(bank),
                "source": source,
                "reading and building, seconds": time.perf_counter() - start,
            },
            "goal": GOAL,
        }
        noise = 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 1
        noisy = (images + NOISE * noise).clamp(0, 1)
        slowest = 0.0
        for name, given in (("8-bit images", images), ("noisy images", noisy)):
            quilt(given[:1], bank)
            calls: dict[str, Callable[[], Any]] = {
                "exact, one by one": lambda given=given: [quilt(one, bank) for one in given.split(1)],
                "exact, a batch": lambda given=given: quilt(given, bank),
                "fast, one by one": lambda given=given: [quilt(one, bank, search="fast") for one in given.split(1)],
                "fast, a batch": lambda given=given: quilt(given, bank, search="fast"),
                "exact, one of 10 neighbours, a batch": lambda given=given: quilt(given, bank, neighbours=10),
            }
            times = timed(calls, rounds)
            quilting = {row: {key: value / len(given) for key, value in of.items()} for row, of in times.items()}
            slowest = max(slowest, quilting["exact, one by one"]["seconds"])
            result[name] = {
                "quilting an image": quilting,
                "searching an image's patches": searches(bank, given, rounds),
            }
        result["load after"] = os.getloadavg()[0]
        return {**result, "met": slowest < GOAL}
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.root, chosen.rounds), indent=2))


if __name__ == "__main__":
    main()
