"""The tables of docs/scaling.md, pure functions of `results/performance/scaling.json` and of `h100.txt` beside it.

python benchmarks/scaling_page.py      puts them into the page
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator import Network, Worker, consensus_pass, projection
from table import machine_line, update

SETS = {"CIFAR-10": (60_000, 32), "ImageNet": (1_281_167, 224), "LAION-scale": (2_000_000_000, 224)}
GPUS, CORES = (1, 8, 64, 512), (8, 64, 512, 4096)
SHARD = 1000
# Assumed, not measured: dollars an hour, cores beside a GPU, what a store gives and takes, and a cluster's network.
GPU_HOUR, CORE_HOUR, CORES_EACH, STORE = 2.5, 0.04, 16, 50e9
CLUSTER = Network(latency=2e-5, bandwidth=1e10)
NARROW_STEPS = 200  # at which an image with narrow maps ends at the latest
WITHIN = 0.15


def h100(path: Path) -> dict[str, float]:
    """Images per second of 45 steps on an H100, as committed: by side, storage and precision."""
    text = path.read_text(encoding="utf-8")
    rates = re.findall(r'"(\d+) px, batch (\d+), torch\.(\w+), (\w+)": \{\s*"images per second": ([\d.]+)', text)
    return {
        f"{side} {storage} {precision}": float(rate) for side, batch, storage, precision, rate in rates if batch != "1"
    }


def gpu(results: dict[str, Any], side: int) -> Worker:
    """An H100 with half-precision maps: its measured rate of 45 steps, for as many as the tolerance takes."""
    size = results["sizes"][str(side)]
    steps = min(size["steps"], NARROW_STEPS)
    return Worker(
        steps / 45 / results["h100"][f"{side} float16 tf32x3"], size["decoding"] + size["encoding"], CORES_EACH
    )


def core(results: dict[str, Any], side: int, *, beside: bool = True) -> Worker:
    """One core of the machine measured, alone or with the others at work too."""
    size = results["sizes"][str(side)]
    return Worker(size["beside" if beside else "alone"], size["decoding"] + size["encoding"])


def network(results: dict[str, Any]) -> Network:
    """Between two processes of the machine measured: from a small sum and a large one."""
    sums = {int(size): seconds for size, seconds in results["processes"]["2"]["sums"].items()}
    small, large = min(sums), max(sums)
    latency = sums[small] / 2
    return Network(latency, large / 2 / (sums[large] / 2 - latency))


def held_against(results: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Each whole run: its name, the seconds measured, and those of the simulator, which was given the pieces only."""
    for name, run in results["runs"].items():
        start = run["startup"]["1"]
        for workers, measured in run["seconds"].items():
            worker = core(results, run["side"], beside=workers != "1")
            each, later = run["images"] // run["shards"], run["startup"][workers] - start
            made = projection(run["images"], each, int(workers), worker, startup=start, later=later)
            who = "1 process" if workers == "1" else f"{workers} processes"
            yield f"project {name}, {who}", measured, made
    beside, both = (results["processes"][name] for name in ("1 beside another", "2"))
    wire, learning = network(results), both["consensus"]
    made = consensus_pass(
        beside["consensus"]["seconds"],
        learning["blocks"],
        2,
        rounds=learning["rounds"],
        message=learning["bytes"],
        network=wire,
    )
    yield "a pass of consensus learning, 2 processes", learning["seconds"], made


def pieces(results: dict[str, Any]) -> str:
    """What was measured, by size."""
    sizes = results["sizes"]
    rows = {
        "T(x), images/s on one core": [f"{1 / size['alone']:.1f}" for size in sizes.values()],
        "the same, another core at work too": [f"{1 / size['beside']:.1f}" for size in sizes.values()],
        "files decoded and encoded, images/s on one core": [
            f"{1 / (size['decoding'] + size['encoding']):.0f}" for size in sizes.values()
        ],
        "memory beyond the batch, kB an image": [
            "-" if size["memory"] is None else f"{size['memory'] / 1000:,.0f}" for size in sizes.values()
        ],
        "files, kB an image in and out": [
            f"{size['bytes in'] / 1000:.1f}, {size['bytes out'] / 1000:.1f}" for size in sizes.values()
        ],
        "steps of an ADMM to its default tolerance": [f"{size['steps']:.0f}" for size in sizes.values()],
        "which move, MB an image": [f"{size['steps'] * size['bytes a step'] / 1e6:,.0f}" for size in sizes.values()],
        "H100, 45 steps, images/s": [_rate(results, side, "float16 ieee") for side in sizes],
        "the same, products by three of TF32": [_rate(results, side, "float16 tf32x3") for side in sizes],
    }
    lines = ["| | " + " | ".join(f"{side} px" for side in sizes) + " |", "| --- |" + " ---: |" * len(sizes)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()), ""])


def _rate(results: dict[str, Any], side: str, kind: str) -> str:
    rate = results["h100"].get(f"{side} {kind}")
    return "not measured" if rate is None else f"{rate:,.0f}"


def strong(results: dict[str, Any]) -> str:
    """One process against two, one thread each."""
    lines = ["| projection | 1 process, s | 2 processes, s | times faster | goal | the start, s | without it |"]
    lines += ["| --- | ---: | ---: | ---: | --- | ---: | ---: |"]
    for name, run in results["runs"].items():
        one, two, start = run["seconds"]["1"], run["seconds"]["2"], run["startup"]["1"]
        met = "met" if one / two >= 1.7 else "**missed**"
        inner = (one - start) / (two - start)
        lines.append(
            f"| {name} | {one:.1f} | {two:.1f} | {one / two:.2f} | >= 1.7, {met} | {start:.1f} | {inner:.2f} |"
        )
    return "\n".join([*lines, ""])


def simulated(results: dict[str, Any]) -> str:
    """The simulator against the whole runs."""
    lines = ["| run | measured, s | simulated, s | off by | within 15 % |", "| --- | ---: | ---: | ---: | --- |"]
    for name, measured, made in held_against(results):
        off = made / measured - 1
        within = "yes" if abs(off) <= WITHIN else "**no**"
        lines.append(f"| {name} | {measured:.3g} | {made:.3g} | {100 * off:+.0f} % | {within} |")
    return "\n".join([*lines, ""])


def communication(results: dict[str, Any]) -> str:
    """What learning and training send."""
    both = results["processes"]["2"]
    learning, training, alone = both["consensus"], both["training"][0], results["processes"]["1"]["training"][0]
    sums = ", ".join(f"{_bytes(int(size))} in {1000 * seconds:.2f} ms" for size, seconds in both["sums"].items())
    lines = [
        f"- Consensus learning, {learning['side']} px, 64 filters: {learning['rounds']} sums a pass, "
        f"{_bytes(learning['bytes'])} each on average, whatever the number of images.",
        f"- Training the small VGG: the gradient, {_bytes(training['gradient'])}, and {training['messages']} small sums"
        f" a step. A step of {training['batch']} images takes {_ms(alone)} on one process and {_ms(training)} on two.",
        f"- A sum over two processes of this machine (gloo): {sums}.",
    ]
    return "\n".join([*lines, ""])


def _ms(run: dict[str, Any]) -> str:
    return f"{1000 * run['seconds']:.0f} ms"


def asked(results: dict[str, Any]) -> str:
    """Machines that nobody here has."""
    lines = ["| data set | on | " + " | ".join(f"{n}" for n in GPUS) + " | cost |", "| --- | --- |" + " ---: |" * 5]
    for name, (count, side) in SETS.items():
        worker = gpu(results, side)
        times = _times(results, count, side, worker, GPUS)
        price = GPU_HOUR * times[0] / 3600
        lines.append(f"| {name} | H100 | {' | '.join(map(_duration, times))} | {_dollars(price)} |")
    lines += [
        "",
        "| data set | on | " + " | ".join(f"{n:,}" for n in CORES) + " | cost |",
        "| --- | --- |" + " ---: |" * 5,
    ]
    for name, (count, side) in SETS.items():
        worker = core(results, side)
        times = _times(results, count, side, worker, CORES)
        price = CORE_HOUR * CORES[0] * times[0] / 3600
        lines.append(f"| {name} | cores as measured | {' | '.join(map(_duration, times))} | {_dollars(price)} |")
    learning = results["processes"]["1 beside another"]["consensus"]
    each = learning["seconds"] / learning["images"]
    lines += ["", "| a pass of consensus learning, 32 px | " + " | ".join(f"{n:,} cores" for n in CORES) + " |"]
    lines += ["| --- |" + " ---: |" * len(CORES)]
    for images in (50_000, 1_281_167):
        blocks = -(-images // 256)
        times = [
            consensus_pass(
                each * images, blocks, n, rounds=learning["rounds"], message=learning["bytes"], network=CLUSTER
            )
            for n in CORES
        ]
        lines.append(f"| {images:,} images in {blocks:,} blocks | {' | '.join(map(_duration, times))} |")
    return "\n".join([*lines, ""])


def _times(results: dict[str, Any], images: int, side: int, worker: Worker, workers: tuple[int, ...]) -> list[float]:
    """Seconds of a set by so many workers, with the start as it was measured."""
    size, start = results["sizes"][str(side)], max(run["startup"]["1"] for run in results["runs"].values())
    each = int(size["bytes in"] + size["bytes out"])
    return [projection(images, SHARD, count, worker, startup=start, store=STORE, each=each) for count in workers]


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.1f} s"


def _dollars(amount: float) -> str:
    if amount < 0.01:
        return "< 0.01 $"
    return f"{amount:.2f} $" if amount < 10 else f"{amount:,.0f} $"


def _bytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB" if size >= 1000 else f"{size:.0f} B"


def sections(folder: Path) -> dict[str, str]:
    """The page's tables by their marks."""
    results = json.loads((folder / "scaling.json").read_text(encoding="utf-8"))
    results["h100"] = h100(folder / "h100.txt")
    made = {"pieces": pieces, "strong": strong, "simulated": simulated, "communication": communication, "asked": asked}
    return {"machine": machine_line(results)} | {name: table(results) for name, table in made.items()}


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    page = root / "docs" / "scaling.md"
    page.write_text(
        update(page.read_text(encoding="utf-8"), sections(root / "results" / "performance")), encoding="utf-8"
    )
