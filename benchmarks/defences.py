"""The input transformations: images a second, memory, and the three with a goal against their peers.

    python benchmarks/defences.py --root DIR [--out results/performance/defences.json] [--rounds N]

DIR holds `cifar-10-batches-py`, `imagenet10` and `imagenet-val`; without them the built-in photographs serve. The rates
are those of one process with two threads, on a batch of CIFAR-10's size and of 224 px. Memory is the peak of a process
of its own that transforms 16 images of 224 px, less what it had before it began.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import defences_pixel_defend
import defences_quilting
import defences_tvm
from attacks import machine
from defences_goals import MEMORY_GOAL, goals
from quasinat.defences import (
    build_patch_bank,
    learn_magnet,
    learn_patch_dictionary,
    save_magnet,
    save_patch_bank,
    save_patch_dictionary,
    save_pixelcnn,
)
from quasinat.defences.registry import DEFENCES, NEEDS, defence_from
from quasinat.files import read_json, write_json
from quasinat.networks import save_classifier, vgg
from quasinat.networks.pixelcnn import PixelCNN

LARGE_BATCH, LARGE, SMALL_BATCH, SMALL = 16, 224, 64, 32
SECONDS, CALLS = 5, 15  # of one transformation at one size


def learned_in(folder: Path, images: torch.Tensor) -> dict[str, str]:
    """A file of every kind that a defence needs, of the default sizes; their weights do not change the cost."""
    paths = {kind: folder / kind.replace(" ", "-") for kind in set(NEEDS.values()) - {"layer"}}
    save_patch_bank(build_patch_bank(images, count=100_000), paths["patch bank"], {})
    save_patch_dictionary(
        learn_patch_dictionary(images, size=10_000, least_distance=0.3), paths["patch dictionary"], {}
    )
    save_magnet(learn_magnet(images[:64], epochs=1), paths["magnet"], {})
    save_pixelcnn(PixelCNN(3), paths["pixelcnn"], {})
    save_classifier(paths["classifier"], vgg("vgg-small", classes=10), {})
    return {kind: str(path) for kind, path in paths.items()}


def rate(name: str, artefact: str | None, images: torch.Tensor) -> float:
    """Images a second by the median of some calls, the first left out."""
    module = defence_from(name, None if artefact is None else Path(artefact)).module.eval()
    calls: list[float] = []
    with torch.no_grad():
        module(images[:1])
        while not calls or (sum(calls) < SECONDS and len(calls) < CALLS):
            begin = time.perf_counter()
            module(images)
            calls.append(time.perf_counter() - begin)
    return len(images) / statistics.median(calls)


def memory(name: str, artefact: str | None) -> float:
    """Bytes that a process of its own allocates at most for a batch of 16 images of 224 px."""
    command = [sys.executable, __file__, "--memory-of", name, *([] if artefact is None else ["--artefact", artefact])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    return float(done.stdout)


def own_memory(name: str, artefact: Path | None) -> float:
    """Of this process."""
    module = defence_from(name, artefact).module.eval()
    images = torch.rand(LARGE_BATCH, 3, LARGE, LARGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        module(images[:1, :, :SMALL, :SMALL])
        # What importing took at its peak would hide what comes: the mark is set back to what is resident now.
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        module(images)
    return float(resident("VmHWM") - before)


def resident(field: str) -> int:
    """A field of this process's status in bytes: VmRSS, what is resident, or VmHWM, its peak; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measure(root: Path | None, rounds: int) -> dict[str, Any]:
    """All of it."""
    rates = of_each(root, [name for name in DEFENCES if name != "stl"])
    return {"memory goal": MEMORY_GOAL, "defences": rates, **with_goals(root, rounds)}


def of_each(root: Path | None, names: list[str]) -> dict[str, Any]:
    """Rates, memory, and how busy the machine was, of some transformations."""
    torch.set_num_threads(2)
    _, large, _ = defences_quilting.bank_and_images(root)
    small = torch.nn.functional.interpolate(large, (SMALL, SMALL), mode="area").repeat(
        SMALL_BATCH // len(large), 1, 1, 1
    )
    rates: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = learned_in(Path(folder), large)
        for name in names:
            artefact = paths.get(NEEDS.get(name, ""))
            rates[name] = {
                f"{SMALL} px": rate(name, artefact, small),
                f"{LARGE} px": rate(name, artefact, large[:2]),
                "memory, bytes": memory(name, artefact),
            }
            rates[name]["load"] = os.getloadavg()[0]
            print(name, rates[name], file=sys.stderr)
    return rates


def with_goals(root: Path | None, rounds: int) -> dict[str, Any]:
    """The three with a goal of speed."""
    torch.set_num_threads(2)
    return {
        "machine": machine(),
        "load at the goals": os.getloadavg()[0],
        "tvm": defences_tvm.measure(root, rounds),
        "quilting": defences_quilting.measure(root, rounds),
        "pixel-defend": defences_pixel_defend.measure(root, rounds),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="measure the goals of speed alone; the rest is FILE's"
    )
    parser.add_argument("--defences", nargs="+", default=[], help="with --again: these once more, instead of the goals")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--artefact", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory_of:
        print(own_memory(chosen.memory_of, chosen.artefact))
        return
    if chosen.again:
        result = dict(read_json(chosen.again))
        if chosen.defences:
            result["defences"] = {**result["defences"], **of_each(chosen.root, chosen.defences)}  # type: ignore[dict-item]
        else:
            result |= with_goals(chosen.root, chosen.rounds)
    else:
        result = measure(chosen.root, chosen.rounds)
    if chosen.out:
        write_json(chosen.out, result)
    print(goals(result))


if __name__ == "__main__":
    main()
