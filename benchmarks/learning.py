"""Dictionary learning against SPORCO's, side by side in one run: prints a table and writes the numbers.

    python benchmarks/learning.py --root DIR --out results/performance/learning.json

SPORCO alternates one iteration of sparse coding with one consensus update of the dictionary; its time is that of all of
its iterations, its result the objective per image of its last dictionary. The same start, images, lambda and norm are
given to each of our learners; its time is that of the first pass whose dictionary is as good. Dictionaries are judged
outside the clock, by coding all the images to a certified 0.1 %. Then, each in a process of its own, what memory a pass
over 1,000 to 32,000 images on disk takes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from images import SPARSITY, coded_band, of_size
from quasinat.evaluation.record import provenance
from quasinat.files import write_json
from quasinat.sparse_coding import (
    Auto,
    Batch,
    Consensus,
    Learner,
    Online,
    SparseCodingProblem,
    learn_dictionary,
    solve,
)
from quasinat.sparse_coding.dictionary import starting_filters
from quasinat.sparse_coding.learning import LEARNERS as LEARNER_KINDS
from quasinat.sparse_coding.learning import chosen_learner
from space_page import learning_table
from sparse_coding import resident

FILTERS, SIZE = 64, 8
# Size, images, rounds, SPORCO's iterations, our passes.
SETS = {"64 images of 32 px": (32, 64, 3, 100, 40), "8 images of 256 px": (256, 8, 1, 50, 8)}
LEARNERS: dict[str, dict[str, Learner]] = {
    "64 images of 32 px": {"batch": Batch(), "online": Online(batch_size=16), "consensus": Consensus()},
    "8 images of 256 px": {"batch": Batch(), "online": Online(batch_size=2), "consensus": Consensus(memory=8e9)},
}
AUTO = next(name for name, kind in LEARNER_KINDS.items() if isinstance(chosen_learner("auto", 64), kind))
COUNTS = (1000, 4000, 16_000, 32_000)
OURS_ON_DISK: dict[str, Learner] = {"online": Online(), "consensus": Consensus(memory=3e8)}


@dataclass
class Run:
    """The dictionaries of a run with the time of each, seconds from the start."""

    started: float = field(default_factory=time.perf_counter)
    seconds: list[float] = field(default_factory=list)
    filters: list[Tensor] = field(default_factory=list)

    def note(self, filters: Tensor) -> None:
        """Keeps a dictionary; the copying is part of the time."""
        self.filters.append(filters.clone())
        self.seconds.append(time.perf_counter() - self.started)


def sporco(images: Tensor, start: Tensor, iterations: int) -> Run:
    """Iterations of SPORCO's own learning with the options of its examples; every tenth dictionary is kept."""
    import sporco.fft
    from sporco.dictlrn import cbpdndl

    sporco.fft.pyfftw_threads = torch.get_num_threads()
    rho = {"CBPDN": {"rho": 50.0 * SPARSITY + 0.5}, "CCMOD": {"rho": 10.0}}
    run = Run()

    def each(learner: Any) -> None:
        if learner.j % 10 == 9:
            run.note(torch.from_numpy(learner.getdict().squeeze((3,))).permute(3, 2, 0, 1).contiguous())

    options = cbpdndl.ConvBPDNDictLearn.Options(
        {"Verbose": False, "MaxMainIter": iterations, "Callback": each, **rho}, xmethod="admm", dmethod="cns"
    )
    signals = images.permute(2, 3, 1, 0).numpy().copy()
    atoms = start.permute(2, 3, 1, 0).numpy().copy()
    learner = cbpdndl.ConvBPDNDictLearn(atoms, signals, SPARSITY, options, xmethod="admm", dmethod="cns")
    learner.solve()
    return run


def ours(images: Tensor, start: Tensor, learner: Learner, passes: int) -> Run:
    """Passes of one of our learners."""
    run = Run()
    learn_dictionary(
        images,
        sparsity=SPARSITY,
        start=start,
        passes=passes,
        tolerance=0.0,
        learner=learner,
        on_pass=lambda state: run.note(state.filters),
    )
    return run


def objective(images: Tensor, filters: Tensor) -> float:
    """The mean of Eq. (2) over the images at the optimal codes of a dictionary on the unit sphere, to 0.1 %."""
    norms = torch.linalg.vector_norm(filters, dim=(1, 2, 3))
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-4)
    values = solve(SparseCodingProblem(images, filters, SPARSITY), Auto(tolerance=1e-3, max_steps=400), codes="sparse")
    return float(values.objective.double().mean())


def first_at(curve: list[float], seconds: list[float], target: float) -> float | None:
    """When the curve first is at the target or below."""
    return next((at for value, at in zip(curve, seconds, strict=True) if value <= target), None)


def against_sporco(name: str, root: Path | None) -> dict[str, Any]:
    """Rounds in which SPORCO and each of our learners run in turns on one set of images."""
    size, count, turns, iterations, passes = SETS[name]
    whole, source = of_size(size, count, root)
    images = coded_band(whole)
    start = starting_filters(images, filters=FILTERS, size=SIZE)
    rounds = []
    for number in range(turns):
        theirs = sporco(images, start, iterations)
        learned = {key: ours(images, start, learner, passes) for key, learner in LEARNERS[name].items()}
        if number == 0:  # the dictionaries are the same in every round
            their_curve = [objective(images, filters) for filters in theirs.filters]
            curves = {key: [objective(images, f) for f in run.filters] for key, run in learned.items()}
        rounds.append((theirs.seconds, {key: run.seconds for key, run in learned.items()}))
        print(name, "round", number + 1, "of", turns, flush=True)

    def median(values: list[list[float]]) -> list[float]:
        return torch.tensor(values).double().median(0).values.tolist()

    their_seconds = median([seconds for seconds, _ in rounds])
    target = their_curve[-1]
    near = 1.01 * target
    result: dict[str, Any] = {
        "source": source,
        "sporco": {
            "objective": target,
            "seconds": their_seconds[-1],
            "seconds to within 1 %": first_at(their_curve, their_seconds, near),
            "curve": dict(zip([round(at, 3) for at in their_seconds], their_curve, strict=True)),
        },
        "initial": curves[AUTO][0],
    }
    for key, curve in curves.items():
        seconds = median([own[key] for _, own in rounds])
        reached, close = first_at(curve, seconds, target), first_at(curve, seconds, near)
        result[key] = {
            "objective": curve[-1],
            "seconds": seconds[-1],
            "seconds to SPORCO's": reached,
            "times faster": None if reached is None else their_seconds[-1] / reached,
            "times faster to within 1 %": None if close is None else result["sporco"]["seconds to within 1 %"] / close,
            "curve": dict(zip([round(at, 3) for at in seconds], curve, strict=True)),
            "falls": all(after <= 1.001 * before for before, after in pairwise(curve)),
        }
    return result


class OnDisk:
    """8-bit images of 3 x 32 x 32 in one file, read as they are asked for."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.each = 3 * 32 * 32
        self.count = path.stat().st_size // self.each

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Tensor) -> Tensor:
        read = (os.pread(self.file.fileno(), self.each, self.each * row) for row in rows.tolist())
        pixels = torch.stack([torch.frombuffer(bytearray(image), dtype=torch.uint8) for image in read])
        return coded_band(pixels.view(-1, 3, 32, 32).float() / 255)


def memory(root: Path | None) -> dict[str, dict[str, float]]:
    """Megabytes that a pass takes beyond what the process had, by learner and number of images."""
    images = (of_size(32, 1000, root)[0] * 255).round().to(torch.uint8)
    answers: dict[str, dict[str, float]] = {key: {} for key in OURS_ON_DISK}
    with tempfile.TemporaryDirectory() as folder:
        for count in COUNTS:
            path = Path(folder) / f"{count}.bin"
            with path.open("wb") as file:
                for turn in range(count // len(images)):
                    file.write(images.roll((turn, 3 * turn), (2, 3)).numpy().tobytes())
            for key in OURS_ON_DISK:
                command = [sys.executable, __file__, "--memory-of", key, "--file", str(path)]
                output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                answers[key][str(count)] = float(output) / 1e6
                print("memory", key, count, f"{answers[key][str(count)]:.0f} MB", flush=True)
    return answers


def memory_of(key: str, path: Path) -> float:
    """Bytes of one pass."""
    torch.set_num_threads(2)
    source = OnDisk(path)
    start = starting_filters(source, filters=32, size=SIZE)
    warm = source[torch.arange(64)]
    solve(SparseCodingProblem(warm, start, 0.4), Auto(tolerance=0.1), codes="sparse")  # libraries are loaded
    before = resident(reset=True)
    learn_dictionary(source, start=start, sparsity=0.4, passes=1, tolerance=0.0, learner=OURS_ON_DISK[key])
    return float(resident() - before)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with cifar-10-batches-py and imagenet-val")
    parser.add_argument("--out", type=Path, default=Path("learning.json"), help="JSON file to write")
    parser.add_argument("--threads", type=int, default=2, help="of SPORCO's transforms, of torch and of our kernels")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(memory_of(arguments.memory_of, arguments.file))
        return
    torch.set_num_threads(arguments.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SPORCO's, about newer versions of what it uses
        compared = {name: against_sporco(name, arguments.root) for name in SETS}
    results = {
        "provenance": provenance(),
        "settings": {
            "filters": FILTERS,
            "size": SIZE,
            "sparsity": SPARSITY,
            "sporco iterations": [values[3] for values in SETS.values()],
        },
        "auto": AUTO,
        "against sporco": compared,
        "memory": memory(arguments.root),
    }
    write_json(arguments.out, json.loads(json.dumps(results)))
    print(learning_table(results))


if __name__ == "__main__":
    main()
