"""How far the system scales: measured on this machine, one piece at a time; simulated; then asked for larger machines.

    python benchmarks/scaling.py --root DIR --out results/performance/scaling.json

On an idle machine with at least two cores, some fifteen minutes. Pieces: T(x) on one core by size, alone and beside
another process; files decoded and encoded; sums over two processes; a pass of learning, a step of training. Whole runs:
`quasinat project` with one and with two processes of one thread each, and learning and training with two. The simulator
is given the pieces only and is held against the whole runs. `scaling_page.py` makes docs/scaling.md of the file.
"""

import argparse
import io
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch
from PIL import Image
from torch import Tensor

from images import coded_band, of_size
from quasinat.data.image_files import pixels, read_picture
from quasinat.data.image_tree import png_bytes, to_8_bits
from quasinat.data.sample import Sample
from quasinat.data.shard_formats import SHARD_FORMATS
from quasinat.files import write_json
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import ADMM, FusedADMM, SparseCodingProblem, solve
from quasinat.sparse_coding.fused_admm import bytes_per_step
from sparse_coding import machine

HERE = Path(__file__).resolve().parent
COUNTS = {32: 1500, 64: 400, 128: 100, 224: 40}  # images whose T(x) is timed, by side
RUNS = ((32, 16, 625), (32, 16, 1250), (224, 16, 30))  # side, shards, and images in each, of the whole runs
ROUNDS = 3
STEPS_OF = {32: 32, 64: 16, 128: 4, 224: 2}  # images on which the steps of an ADMM are counted


def learned(folder: Path, root: Path | None) -> Path:
    """A layer of four strata and 64 filters, learned by the command."""
    data = ["--data", "cifar10", "--root", str(root)] if root else ["--data", "photographs"]
    made = folder / "layer.stl"
    few = ["--epochs", "2", "--passes", "2", "--images-each", "200"]
    subprocess.run([sys.executable, "-m", "quasinat", "learn", "layer", *data, *few, "--out", str(made)], check=True)
    return made


def seconds_an_image(layer: SparseTransformationLayer, images: Tensor) -> float:
    """Of T(x) on one thread, the median of three times."""
    layer.project(images[:8])
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        layer.project(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times) / len(images)


def beside(path: Path, side: int, root: Path | None, ready: Any, answers: Any) -> None:
    """The same in a process that waits until the other one is as far."""
    torch.set_num_threads(1)
    layer, images = SparseTransformationLayer.load(path), of_size(side, COUNTS[side], root)[0]
    layer.project(images[:8])
    ready.wait()
    answers.put(seconds_an_image(layer, images))


def two_at_once(path: Path, side: int, root: Path | None) -> float:
    """Seconds an image in each of two processes that run at once."""
    spawned = multiprocessing.get_context("spawn")
    ready, answers = spawned.Barrier(2), spawned.Queue()
    both = [spawned.Process(target=beside, args=(path, side, root, ready, answers)) for _ in range(2)]
    for process in both:
        process.start()
    found = [answers.get(timeout=600) for _ in both]
    for process in both:
        process.join()
    return statistics.mean(found)


def memory_of(path: Path, side: int, root: Path | None) -> float | None:
    """Bytes that T(x) of a batch takes at its fullest for each of its images, beyond the batch; where Linux tells."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[4])\n"
        "from pathlib import Path; import torch\n"
        "from images import of_size; from quasinat.layer import SparseTransformationLayer\n"
        "field = lambda name: next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith(name))\n"
        "torch.set_num_threads(1)\n"
        "layer, side = SparseTransformationLayer.load(sys.argv[1]), int(sys.argv[2])\n"
        "images = of_size(side, 2**20 // side**2, Path(sys.argv[3]) if sys.argv[3] else None)[0]\n"
        "layer.project(images[:1])\n"
        "open('/proc/self/clear_refs', 'w').write('5'); before = field('VmRSS')\n"
        "layer.project(images)\n"
        "print(1024 * (field('VmHWM') - before) / len(images))"
    )
    arguments = [str(path), str(side), str(root or ""), str(HERE)]
    found = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    return float(found.stdout) if found.returncode == 0 else None


def encoded(image: Tensor, side: int) -> bytes:
    """An image file as sets of that size have them: PNG up to 64 pixels, JPEG above."""
    if side <= 64:
        return png_bytes(image)
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=90)
    return file.getvalue()


def files_of(images: Tensor, side: int) -> dict[str, float]:
    """Seconds on one core to decode an image and to encode its T(x), and the bytes of both files."""
    eight = to_8_bits(images)
    given = [encoded(image, side) for image in eight]
    path = Path("image")
    decoding = timed(lambda: [pixels(read_picture(path, file)).float() / 255 for file in given]) / len(given)
    encoding = timed(lambda: [png_bytes(image) for image in eight]) / len(given)
    made = [png_bytes(image) for image in eight]
    count = len(given)
    return {
        "decoding": decoding,
        "encoding": encoding,
        "bytes in": sum(map(len, given)) / count,
        "bytes out": sum(map(len, made)) / count,
    }


def timed(run: Callable[[], Any]) -> float:
    """Seconds, the median of three times."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def of_one_size(path: Path, side: int, root: Path | None) -> dict[str, Any]:
    """All pieces of a size."""
    images = of_size(side, COUNTS[side], root)[0]
    layer = SparseTransformationLayer.load(path)
    filters = layer.filters[0]
    coded = coded_band(images[: STEPS_OF[side]])
    problem = SparseCodingProblem(coded, filters, layer.sparsity)
    steps = float(solve(problem, ADMM(tolerance=FusedADMM.tolerance)).steps.double().mean())
    traffic = bytes_per_step(1, *filters.shape[:3], side, side)
    return {
        "alone": seconds_an_image(layer, images),
        "beside": two_at_once(path, side, root),
        "memory": memory_of(path, side, root),
        **files_of(images, side),
        "steps": steps,
        "bytes a step": traffic,
    }


def whole_runs(path: Path, side: int, shards: int, each: int, root: Path | None, work: Path) -> dict[str, Any]:
    """`quasinat project` of tars by one and by two processes of one thread, in turns, and what it takes to begin."""
    images = to_8_bits(of_size(side, shards * each, root)[0])
    source = work / f"source-{side}-{each}"
    source.mkdir()
    for number in range(shards):
        part = images[torch.arange(number * each, (number + 1) * each) % len(images)]  # CIFAR-10's test set, again
        samples = [Sample(f"{number:02}-{n:04}", encoded(image, side)) for n, image in enumerate(part)]
        (source / f"{number:02}.tar").write_bytes(SHARD_FORMATS["webdataset"].write(samples))
    taken: dict[int, list[float]] = {1: [], 2: []}
    startup: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers in (1, 2):
            out = work / "out"
            command = [sys.executable, "-m", "quasinat", "project", str(source), str(out), "--layer", str(path)]
            command += ["--format", "webdataset", "--workers", str(workers)]
            for kept in (taken, startup):  # the second time every shard is there
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                kept[workers].append(time.perf_counter() - start)
            shutil.rmtree(out)
    return {
        "side": side,
        "shards": shards,
        "images": shards * each,
        "seconds": {str(workers): statistics.median(values) for workers, values in taken.items()},
        "startup": {str(workers): statistics.median(values) for workers, values in startup.items()},
    }


def processes(count: int) -> dict[str, Any]:
    """What `scaling_worker.py` finds with so many processes."""
    script = str(HERE / "scaling_worker.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    start = [sys.executable] if count == 1 else torchrun
    found = subprocess.run([*start, script], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(next(line for line in found.splitlines() if line.startswith("{"))))


def two_jobs() -> dict[str, Any]:
    """The same on one process, while another job on one process does the same."""
    script = [sys.executable, str(HERE / "scaling_worker.py")]
    jobs = [subprocess.Popen(script, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [job.communicate()[0] for job in jobs]
    return dict(json.loads(said[0]))


def main() -> None:
    """Measures what the file does not have yet, and writes it after each piece."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, help="folder with cifar-10-batches-py and imagenet-val")
    parser.add_argument("--out", type=Path, required=True, help="the result file; an unfinished one is continued")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"machine": machine(), "runs": {}, "sizes": {}, "processes": {}}
    if chosen.out.is_file():
        found |= json.loads(chosen.out.read_text(encoding="utf-8"))

    def measured(part: str, name: str, measure: Callable[[], Any]) -> None:
        if name not in found[part]:
            found[part][name] = measure()
            print(part, name, json.dumps(found[part][name]), flush=True)
            write_json(chosen.out, found)

    with tempfile.TemporaryDirectory() as folder:
        path = learned(Path(folder), chosen.root)
        for side, shards, each in RUNS:
            run = partial(whole_runs, path, side, shards, each, chosen.root, Path(folder))
            measured("runs", f"{shards * each:,} images of {side} px", run)
        for side in COUNTS:
            measured("sizes", str(side), partial(of_one_size, path, side, chosen.root))
    for name, run in (("1", partial(processes, 1)), ("1 beside another", two_jobs), ("2", partial(processes, 2))):
        measured("processes", name, run)


if __name__ == "__main__":
    main()
