"""The solvers of Eq. (2) against their goals, SPORCO and the machine: prints a table and writes it with its numbers.

    python benchmarks/sparse_coding.py --root DIR --out results/performance

`--root` is a folder with `cifar-10-batches-py` and `imagenet-val`; without it the built-in photographs serve, and the
row of the 10,000 CIFAR-10 images is left out. All times are wall-clock; what is compared runs in turns in one process
on the same images, and the median of the rounds is taken. A gap is the objective at the sparse variable over its
optimum, minus one; the optimum is that of a float64 solve whose duality gap is below 1e-6.
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from images import SPARSITY, cifar_test, coded_band, filters_for, mosaic, of_size
from quasinat.evaluation.record import provenance
from quasinat.sparse_coding import (
    ADMM,
    CoordinateDescent,
    Identity,
    Implicit,
    Result,
    Solver,
    SparseCodingProblem,
    Unrolled,
    reconstruct,
    solve,
)
from quasinat.sparse_coding._kernels import binding

# They count only before torch and SPORCO load; the parts on two threads start their own.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
COUNTS = {32: 48, 64: 12, 224: 2}
ROUNDS = {32: 3, 64: 3, 224: 3}
DESCENTS = [
    CoordinateDescent(tolerance=tolerance)
    for tolerance in (0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002)
]
ADMMS = [ADMM(tolerance=tolerance) for tolerance in (1e-2, 8e-3, 7e-3, 6e-3, 5e-3, 4e-3, 3.5e-3, 3e-3, 2e-3, 1e-3)]
GAP = 1e-3


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def medians(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median seconds of each function over rounds in which each runs once, in turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {name: statistics.median(values) for name, values in times.items()}


def optimum(images: Tensor, filters: Tensor) -> Tensor:
    """The optimal objective of each image, float64."""
    problem = SparseCodingProblem(images.double(), filters.double(), SPARSITY)
    solution = solve(problem, CoordinateDescent(tolerance=1e-6, max_steps=5000, threads=2), codes="sparse")
    assert (solution.result == Result.converged).all()
    return solution.objective


def sporco_recipe(images: Tensor, filters: Tensor) -> list[Tensor]:
    """SPORCO by the authors' recipe, image by image: codes `1 K H W`."""
    import sporco.fft
    from sporco.admm import cbpdn

    sporco.fft.pyfftw_threads = 1
    options = cbpdn.ConvBPDN.Options({"Verbose": False, "MaxMainIter": 200, "RelStopTol": 5e-3})
    dictionary = filters.permute(2, 3, 1, 0).numpy()
    codes = []
    for image in images:
        solver = cbpdn.ConvBPDN(dictionary, image.permute(1, 2, 0).numpy(), SPARSITY, options)
        solver.solve()
        codes.append(torch.from_numpy(solver.var_y().squeeze((2, 3)).copy()).permute(2, 0, 1)[None])
    return codes


def gaps_of(codes: list[Tensor], images: Tensor, filters: Tensor, best: Tensor) -> Tensor:
    """The gap of each image's codes, the objective in float64."""
    objectives = [
        SparseCodingProblem(image[None].double(), filters.double(), SPARSITY).objective(z.double())
        for image, z in zip(images, codes, strict=True)
    ]
    return torch.cat(objectives) / best - 1


def cheapest(
    solvers: list[Any], problem: SparseCodingProblem, best: Tensor, statistic: Callable[[Tensor], Tensor] = torch.max
) -> tuple[Solver, Tensor]:
    """The first of the solvers, loosest first, whose worst (or mean) gap is at most `GAP`, and its gaps."""
    for solver in solvers:
        solution = solve(problem, solver, codes="sparse")
        codes = [solution.codes.index_select(0, torch.tensor([i])).to_dense() for i in range(len(best))]
        gaps = gaps_of(codes, problem.images, problem.filters, best)
        if float(statistic(gaps)) <= GAP:
            break
    return solver, gaps


def one_thread(root: Path | None) -> dict[str, Any]:
    """Time to a gap of 0.1 % on one thread, against SPORCO's recipe."""
    torch.set_num_threads(1)
    rows = {}
    for size, count in COUNTS.items():
        whole, source = of_size(size, max(count, 200 if size < 224 else 8), root)
        filters = filters_for(coded_band(whole))
        images = coded_band(whole[:count])
        best = optimum(images, filters)
        problem = SparseCodingProblem(images, filters, SPARSITY)
        contenders = {
            "coordinate-descent": cheapest(DESCENTS, problem, best),
            "admm": cheapest(ADMMS, problem, best),
            "admm, in the mean": cheapest(ADMMS, problem, best, torch.mean),
        }
        recipe: list[Tensor] = []
        functions: dict[str, Callable[[], Any]] = {
            "sporco": lambda images=images, filters=filters, recipe=recipe: recipe.__setitem__(
                slice(None), sporco_recipe(images, filters)
            ),
        }
        for name, (solver, _) in contenders.items():
            functions[name] = lambda problem=problem, solver=solver: solve(problem, solver, codes="sparse")
        times = medians(functions, ROUNDS[size])
        gaps = {"sporco": gaps_of(recipe, images, filters, best), **{name: g for name, (_, g) in contenders.items()}}
        rows[str(size)] = {
            "images": source,
            "count": count,
            "ms per image": {name: 1e3 * value / count for name, value in times.items()},
            "times faster": {name: times["sporco"] / value for name, value in times.items()},
            "setting": {
                name: f"{type(solver).__name__}(tolerance={solver.tolerance})"  # type: ignore[union-attr]
                for name, (solver, _) in contenders.items()
            },
            "mean gap": {name: float(values.mean()) for name, values in gaps.items()},
            "worst gap": {name: float(values.max()) for name, values in gaps.items()},
            "floor": floor(problem, contenders["coordinate-descent"][0], 1e3 * times["coordinate-descent"] / count),
        }
    return rows


def floor(problem: SparseCodingProblem, solver: CoordinateDescent, measured: float) -> dict[str, float]:
    """What the arithmetic of coordinate descent takes at the rate of a large matrix product on this thread."""
    square = torch.rand(1024, 1024)
    square @ square
    rate = 2 * 1024**3 / statistics.median(seconds(lambda: square @ square) for _ in range(9))
    options = binding.Options(problem.sparsity, solver.tolerance, solver.inner, solver.max_steps, solver.passes, 1)
    _, report = binding.solve(problem.images, problem.filters, options, None)
    filters, channels, size = problem.filters.shape[:3]
    pixels = problem.images.shape[-1] * problem.images.shape[-2]
    taps = channels * size**2
    looks = float((report.steps.double() + 1).mean()) * 2 * filters * taps * pixels
    descent = float(report.visits.double().mean()) * 2 * taps
    return {
        "GFLOP per second": rate / 1e9,
        "MFLOP per image": (looks + descent) / 1e6,
        "share of it in looks": looks / (looks + descent),
        "ms per image at that rate": 1e3 * (looks + descent) / rate,
        "measured over floor": measured / (1e3 * (looks + descent) / rate),
    }


def two_threads(root: Path | None) -> dict[str, Any]:
    """Two threads against one: a batch of small images, and one large image."""
    whole, _ = of_size(32, 256, root)
    filters = filters_for(coded_band(whole))
    batch = SparseCodingProblem(coded_band(whole), filters, SPARSITY)
    large = SparseCodingProblem(coded_band(of_size(224, 1, root)[0]), filters, SPARSITY)
    functions = {
        f"{what}, {threads}": lambda problem=problem, threads=threads: solve(
            problem, CoordinateDescent(threads=threads), codes="sparse"
        )
        for what, problem in (("batch", batch), ("large", large))
        for threads in (1, 2)
    }
    times = medians(functions, 7)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        times[f"admm, {threads}"] = statistics.median(
            seconds(lambda: solve(batch, ADMM(tolerance=5e-3), codes="sparse")) for _ in range(3)
        )
    torch.set_num_threads(1)
    return {
        "a batch of 256 images of 32 px": times["batch, 1"] / times["batch, 2"],
        "one image of 224 px": times["large, 1"] / times["large, 2"],
        "a batch of 256 images of 32 px, admm": times["admm, 1"] / times["admm, 2"],
    }


def whole_set(root: Path | None) -> dict[str, Any]:
    """All CIFAR-10 test images on two threads, and the worst gap of 320 of them."""
    images = cifar_test(root)
    if images is None:
        return {"not run": "no folder with cifar-10-batches-py was named"}
    coded = coded_band(images)
    filters = filters_for(coded[:200])
    solver = CoordinateDescent(threads=2)
    solutions: list[Any] = []
    times = []
    for _ in range(3):
        solutions[:] = []
        times.append(
            seconds(
                lambda: solutions.append(solve(SparseCodingProblem(coded, filters, SPARSITY), solver, codes="sparse"))
            )
        )
    solution = solutions[0]
    first = coded[:320]
    best = optimum(first, filters)
    dense = [solution.codes.index_select(0, torch.tensor([i])).to_dense() for i in range(320)]
    gaps = gaps_of(dense, first, filters, best)
    recipe = gaps_of(sporco_recipe(first, filters), first, filters, best)
    admm = solve(SparseCodingProblem(first, filters, SPARSITY), ADMM(tolerance=3e-3))
    admm_gaps = gaps_of(list(admm.codes.split(1)), first, filters, best)
    return {
        "images": len(coded),
        "seconds": statistics.median(times),
        "certified gap, worst of all": float((solution.duality_gap / solution.objective).max()),
        "not converged": int((solution.result != Result.converged).sum()),
        "density": solution.density,
        "320 images": {
            "coordinate descent, mean gap": float(gaps.mean()),
            "coordinate descent, worst gap": float(gaps.max()),
            "admm, worst gap": float(admm_gaps.max()),
            "admm, not converged": int((admm.result != Result.converged).sum()),
            "sporco, worst gap": float(recipe.max()),
            "sporco, above 1 %": int((recipe > 0.01).sum()),
        },
    }


def scaling(root: Path | None) -> dict[str, Any]:
    """Cost per pixel from 32 to 512 px: the same 256 images, alone and laid side by side into larger ones.

    To a gap of 0.1 % of every picture at each size, and to a certified 1 % (a harder thing the larger the picture is:
    one pixel's violation scales the whole dual point).
    """
    images = of_size(32, 256, root)[0]
    filters = filters_for(coded_band(images))
    functions: dict[str, Callable[[], Any]] = {}
    sizes = (32, 64, 128, 256, 512)
    settings = {}
    for size in sizes:
        per_picture = (size // 32) ** 2
        pictures = torch.cat([mosaic(part, size) for part in images.split(per_picture)])
        problem = SparseCodingProblem(coded_band(pictures), filters, SPARSITY)
        solver, _ = cheapest(DESCENTS, problem, optimum(problem.images, filters))
        settings[str(size)] = solver.tolerance  # type: ignore[union-attr]
        certain = CoordinateDescent(tolerance=0.01)
        functions[f"{size}"] = lambda problem=problem, solver=solver: solve(problem, solver, codes="sparse")
        functions[f"{size}, certified"] = lambda problem=problem, certain=certain: solve(
            problem, certain, codes="sparse"
        )
    times = medians(functions, 3)
    nanoseconds = {str(size): 1e9 * times[f"{size}"] / 512**2 for size in sizes}
    certified = {str(size): 1e9 * times[f"{size}, certified"] / 512**2 for size in sizes}
    return {
        "nanoseconds per pixel": nanoseconds,
        "largest over smallest": max(nanoseconds.values()) / min(nanoseconds.values()),
        "tolerance": settings,
        "nanoseconds per pixel, certified 1 %": certified,
        "bytes per pixel": memory(),
    }


def memory() -> dict[str, float]:
    """Peak memory of a solve beyond what was there before, per pixel, each size in a process of its own."""
    answers = {}
    for size in (512, 1024, 2048):
        command = [sys.executable, __file__, "--memory-of", str(size)]
        answers[str(size)] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return answers


def memory_of(size: int) -> float:
    """Bytes per pixel of one solve of a `size` px image on one thread, its codes sparse."""
    torch.set_num_threads(1)
    pictures = of_size(32, 64, None)[0]
    filters = filters_for(coded_band(pictures))
    picture = mosaic(coded_band(pictures), 256).repeat(1, 1, size // 256, size // 256)
    problem = SparseCodingProblem(picture, filters, SPARSITY)
    before = resident(reset=True)
    solve(problem, CoordinateDescent(threads=1), codes="sparse")
    return (resident() - before) / size**2


def resident(reset: bool = False) -> int:
    """The peak resident size in bytes since the last reset, which makes it the present one (Linux)."""
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before does not hide what is asked for now
        Path("/proc/self/clear_refs").write_text("5")
    status = next(line for line in _lines("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(status.split()[1])


def large_image(root: Path | None) -> dict[str, float]:
    """One 224 px image on one thread to a certified 1 %."""
    whole, _ = of_size(224, 8, root)
    filters = filters_for(coded_band(whole))
    times = []
    for image in coded_band(whole):
        problem = SparseCodingProblem(image[None], filters, SPARSITY)
        solver = CoordinateDescent(tolerance=0.01, threads=1)
        times.append(statistics.median(seconds(lambda: solve(problem, solver, codes="sparse")) for _ in range(3)))  # noqa: B023
    return {"seconds, median of 8 images": statistics.median(times), "seconds, slowest": max(times)}


def gradients(root: Path | None) -> dict[str, Any]:
    """What each gradient costs, and its cosine with the true one (float64, solved to 1e-9)."""
    torch.set_num_threads(1)
    images = coded_band(of_size(32, 16, root)[0])
    filters = filters_for(images)
    cotangent = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))

    def run(adjoint: Any, dtype: torch.dtype = torch.float32) -> tuple[Tensor, float, float]:
        leaf = images.to(dtype).requires_grad_()
        start = time.perf_counter()
        output = reconstruct(leaf, filters.to(dtype), SPARSITY, adjoint)
        middle = time.perf_counter()
        (gradient,) = torch.autograd.grad(output, leaf, cotangent.to(dtype))
        return gradient.double().flatten(1), middle - start, time.perf_counter() - middle

    truth, _, _ = run(Implicit(forward_tolerance=1e-9, tolerance=1e-10, max_steps=5000), torch.float64)
    rows = {}
    kinds = {"identity": Identity(), "implicit": Implicit(), **{f"unrolled {n}": Unrolled(n) for n in (25, 50, 100)}}
    for name, adjoint in kinds.items():
        runs = [run(adjoint) for _ in range(3 if name != "unrolled 100" else 1)]
        forward, backward = (1e3 * statistics.median(one[i] for one in runs) / len(images) for i in (1, 2))
        rows[name] = {
            "forward, ms per image": forward,
            "backward, ms per image": backward,
            "backward over forward": backward / forward,
            "cosine with the true gradient": float(torch.cosine_similarity(runs[0][0], truth).mean()),
        }
    return rows


def gpu() -> dict[str, Any]:
    """Throughput of the fused ADMM on a CUDA device, and its floor from measured bandwidth and rate."""
    if not torch.cuda.is_available():
        return {"not measured": "this machine has no CUDA device"}
    from quasinat.sparse_coding.fused_admm import FusedADMM, bytes_per_step, flops_per_step

    device = torch.device("cuda")
    large = torch.empty(2**28, device=device)
    square = torch.rand(8192, 8192, device=device)

    def timed(function: Callable[[], Any], rounds: int = 5) -> float:
        function()
        torch.cuda.synchronize()
        return statistics.median(seconds(lambda: (function(), torch.cuda.synchronize())) for _ in range(rounds))

    bandwidth = 2 * 4 * 2**28 / timed(lambda: large.copy_(large.roll(0)))
    rate = 2 * 8192**3 / timed(lambda: square @ square)
    answers: dict[str, Any] = {"device": torch.cuda.get_device_name(), "bandwidth": bandwidth, "rate": rate}
    for size, batch in ((32, 4096), (64, 1024), (224, 64), (224, 1)):
        images = coded_band(of_size(size, 8, None)[0]).to(device)
        filters = filters_for(images.cpu()).to(device)
        images = images.repeat(batch // len(images) + 1, 1, 1, 1)[:batch].contiguous()
        problem = SparseCodingProblem(images, filters, SPARSITY)
        for storage in (torch.float32, torch.float16):
            for precision in ("ieee", "tf32x3"):
                solver = FusedADMM(tolerance=0.0, max_steps=45, storage=storage, precision=precision)
                elapsed = timed(lambda: solve(problem, solver), 3)  # noqa: B023
                shape = (batch, 64, 3, 8, size, size)
                least = 45 * max(bytes_per_step(*shape, storage) / bandwidth, flops_per_step(*shape) / rate)
                answers[f"{size} px, batch {batch}, {storage}, {precision}"] = {
                    "images per second": batch / elapsed,
                    "floor over measured": least / elapsed,
                }
    return answers


def machine() -> dict[str, Any]:
    """What ran: processor, instruction set, versions."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        **provenance(),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": binding.instruction_set(),
        "sporco": version("sporco"),
        "numpy": version("numpy"),
        "date": time.strftime("%Y-%m-%d"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def main() -> None:
    """Runs every part, prints the table and writes `results.json` and `table.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=os.environ.get("QUASINAT_DATA") and Path(os.environ["QUASINAT_DATA"])
    )
    parser.add_argument("--out", type=Path, default=Path("results/performance"))
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(memory_of(arguments.memory_of))
        return
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    from table import table

    parts: dict[str, Callable[[], Any]] = {
        "machine": machine,
        "one thread": lambda: one_thread(arguments.root),
        "two threads": lambda: two_threads(arguments.root),
        "whole set": lambda: whole_set(arguments.root),
        "scaling": lambda: scaling(arguments.root),
        "large image": lambda: large_image(arguments.root),
        "gradients": lambda: gradients(arguments.root),
        "gpu": gpu,
    }
    results = {}
    for name, part in parts.items():
        start = time.perf_counter()
        results[name] = part()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
