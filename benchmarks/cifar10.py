"""A CIFAR-10 layer for each lambda, learned on all 50,000 training images and looked at with the 10,000 test images.

    python benchmarks/cifar10.py --root DIR --work FOLDER --out results/cifar10

Runs the commands a user would run, one after the other, and notes how long each took; a command whose output is there
already in FOLDER is not run again. Then writes to --out the card of each layer, its filters' picture, what `quasinat
show strata` found, and the PSNR of the projected test images.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quasinat.files import write_json
from space_page import cifar10_table

SPARSITIES = ("0.1", "0.15", "0.2", "0.3")
# One pass each, but for one dictionary that shows in its card what a second pass is worth.
PASSES = {"universal-0.1.stl": "3"}
SHOWN = "0.2"  # the lambda whose strata are reported


class Commands:
    """Runs `quasinat` commands once each and keeps their seconds in `seconds.json`."""

    def __init__(self, work: Path) -> None:
        self.record = work / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self.record.read_text()) if self.record.is_file() else {}

    def make(self, target: Path, *arguments: str) -> None:
        """Runs the command that makes `target`, unless it has been run to its end."""
        if target.name in self.seconds:
            return
        print("quasinat", *arguments, flush=True)
        began = time.perf_counter()
        output = self.run(*arguments)
        self.seconds[target.name] = time.perf_counter() - began
        write_json(self.record, self.seconds)
        if not target.exists():  # what a command prints instead of writing it
            target.write_text(output)

    @staticmethod
    def run(*arguments: str) -> str:
        """What the command prints."""
        command = [str(Path(sys.executable).with_name("quasinat")), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def learn(commands: Commands, work: Path, data: list[str]) -> None:
    """Autoencoder and strata once; the universal and the four strata's dictionaries for each lambda."""
    autoencoder, strata = work / "autoencoder.safetensors", work / "strata.safetensors"
    commands.make(autoencoder, "learn", "autoencoder", *data, "--out", str(autoencoder))
    commands.make(strata, "learn", "strata", *data, "--autoencoder", str(autoencoder), "--out", str(strata))
    for sparsity in SPARSITIES:
        for name, of in (("universal", ["--universal"]), ("stratified", ["--strata-file", str(strata)])):
            layer = work / f"{name}-{sparsity}.stl"
            passes = PASSES.get(layer.name, "1")
            commands.make(
                layer, "learn", "layer", *data, *of, "--lambda", sparsity, "--passes", passes, "--out", str(layer)
            )


def project(commands: Commands, work: Path, root: Path) -> dict[str, dict[str, Any]]:
    """PSNR of all test images, by layer; the images themselves stay in FOLDER."""
    found = {}
    for sparsity in SPARSITIES:
        for name in ("universal", "stratified"):
            layer, report = work / f"{name}-{sparsity}.stl", work / f"projected-{name}-{sparsity}.json"
            images = work / f"projected-{name}-{sparsity}"
            source = str(root / "cifar-10-batches-py")
            commands.make(report, "project", source, str(images), "--layer", str(layer), "--json")
            values = json.loads(report.read_text())
            found[f"{name}-{sparsity}"] = {
                "images": values["written"] + values["skipped"],
                "failed": len(values["failed"]),
                "psnr": values["mean_psnr"],
                "seconds": values["seconds"],
            }
    return found


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with cifar-10-batches-py")
    parser.add_argument("--work", type=Path, required=True, help="folder of the layers and projections")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is worth keeping")
    arguments = parser.parse_args()
    root, work, out = arguments.root, arguments.work, arguments.out
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    data = ["--data", "cifar10", "--root", str(root)]
    commands = Commands(work)
    learn(commands, work, data)
    for sparsity in SPARSITIES:
        for name in ("universal", "stratified"):
            layer, picture = work / f"{name}-{sparsity}.stl", out / f"{name}-{sparsity}.png"
            commands.run("show", "filters", str(layer), *data, "--out", str(picture))
            write_json(out / f"{name}-{sparsity}.json", json.loads(commands.run("info", str(layer), "--json")))
    projection = project(commands, work, root)
    strata = work / "strata"
    layers = [str(work / f"stratified-{SHOWN}.stl"), "--universal", str(work / f"universal-{SHOWN}.stl")]
    commands.make(strata, "show", "strata", *layers, *data, "--images", "1000", "--out", str(strata))
    for name in ("strata.json", "strata.md", "strata.png"):
        shutil.copy(strata / name, out / name)
    seconds = commands.seconds
    result = {
        "projection": projection,
        "seconds": seconds,
        "minutes of the five dictionaries": {
            s: (seconds[f"universal-{s}.stl"] + seconds[f"stratified-{s}.stl"]) / 60 for s in SPARSITIES
        },
    }
    write_json(out / "projection.json", result)
    print(cifar10_table(result))


if __name__ == "__main__":
    main()
