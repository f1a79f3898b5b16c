"""A fixed number of steps: time and error of T(x) at 32, 64 and 224 px, and what classifiers make of it.

    python benchmarks/latency.py --root DIR --weights FILE [--work FOLDER] [--out results/performance/latency.json]
    python benchmarks/latency.py --root DIR --weights FILE --again throughput       that piece alone, anew

DIR holds `cifar-10-batches-py`, `imagenet10` and `imagenet-val`, FILE the weights of a MobileNetV2. On one thread, some
half an hour on an idle machine. Each piece is written as soon as it is measured, and the same command goes on from
there; FOLDER keeps the layers and networks that were learned. Errors are to T(x) of a solve to a duality gap of 1e-6.
`latency_page.py` makes the table of docs/export.md and its figure of the file.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import machine
from images import of_size
from latency_sets import Part, parts
from latency_times import LEAST, SECONDS, Run, latency, rate
from quasinat.batches import project
from quasinat.defended import Defended
from quasinat.export import FixedState, OnnxRuntime, fixed, program_of
from quasinat.export.fixed_layer import FixedLayer
from quasinat.export.onnx_file import onnx_of
from quasinat.files import write_json
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import CoordinateDescent, SparseCodingProblem, correlate, solve
from quasinat.sparse_coding.convolution import convolve
from quasinat.strata import split_bands

SIZES = (32, 64, 224)
STEPS = (5, 10, 20, 40, 80, 200)
BOUNDS = (1, 2, 4, 8, 16)  # passes of coordinate descent over all the pixels, at most
STREAM_STEPS = 40  # at most, a frame
EXACT = CoordinateDescent(tolerance=1e-6)
MANY = 40
AGREEING = {32: 16, 64: 16, 224: 4}  # images on which onnxruntime is held against PyTorch
BATCHES = (1, 3)  # so many at a time, in turns
DEFENDED_STEPS = 20  # of the defended classifier that is held against PyTorch


def error(made: Tensor, truth: Tensor) -> dict[str, float]:
    """The largest and the mean absolute error over all pixels of all images."""
    apart = (made - truth).abs()
    return {"largest": float(apart.max()), "mean": float(apart.mean())}


def judged(part: Part, made: Tensor, truth: Tensor) -> dict[str, float]:
    """What the part's network makes of T(x): the labels it gets right, and those that it gives the exact T(x) too."""
    with torch.no_grad():
        label, other = (part.network(images).argmax(1) for images in (made, truth))
    count = len(made)
    return {
        "accuracy": float((label == part.labels[:count]).float().mean()),
        "same label": float((label == other).float().mean()),
    }


def curve(part: Part, steps: Sequence[int], threads: int) -> dict[str, Any]:
    """Error and labels at each number of steps, and of the adaptive solver, by all cores.

    On all images of the part, but after more than `MANY` steps of large images on the first fifth of them.
    """
    torch.set_num_threads(threads)
    truth = project(part.layer.with_solver(EXACT), part.images, batch_size=64)

    def row(made: Tensor) -> dict[str, float]:
        same = truth[: len(made)]
        return {"images": len(made), **error(made, same), **judged(part, made, same)}

    found: dict[str, Any] = {"exact": row(truth), "adaptive": row(project(part.layer, part.images, batch_size=64))}
    made: dict[int, list[Tensor]] = {count: [] for count in steps}
    for place, images in enumerate(part.images.split(8 if part.side < 200 else 1)):
        state, done = None, 0
        for count in steps:  # the longer runs begin as the shorter ones
            if count > MANY and part.side > 200 and 5 * place >= len(part.images):
                break
            after, state = fixed_for(part, count - done).next(images, state)
            made[count].append(after)
            done = count
    torch.set_num_threads(1)
    return found | {str(count): row(torch.cat(batches)) for count, batches in made.items()}


@cache
def fixed_for(part: Part, steps: int) -> FixedLayer:
    """The part's layer at so many steps."""
    return fixed(part.layer, steps, image_size=part.side)


def eager(part: Part, steps: Sequence[int], seconds: float) -> dict[str, Any]:
    """Plain PyTorch, and the layer as it is: coordinate descent until it is done."""
    part.layer.project(part.images[:1])
    fixed_for(part, steps[0])(part.images[:1])
    found = {"adaptive": latency(part.layer.project, part.images, seconds)}
    for count in steps:
        found[str(count)] = latency(fixed_for(part, count), part.images, seconds)
    return found


def bounded(part: Part, seconds: float) -> dict[str, Any]:
    """The layer with its default solver, held to so many passes over all the pixels: latency, error and labels."""
    truth = project(part.layer.with_solver(EXACT), part.images, batch_size=64)
    found: dict[str, Any] = {}
    for most in BOUNDS:
        layer = bounded_for(part, most)
        made = project(layer, part.images, batch_size=64)
        found[str(most)] = {
            "images": len(made),
            **error(made, truth),
            **judged(part, made, truth),
            **latency(layer.project, part.images, seconds),
        }
    return found


def bounded_for(part: Part, most: int) -> SparseTransformationLayer:
    """The part's layer with its default solver, held to so many passes over all the pixels."""
    return part.layer.with_solver(CoordinateDescent(max_steps=most))


def compiled(part: Part, steps: Sequence[int], seconds: float) -> dict[str, Any]:
    """`torch.compile`, for one image; one graph serves every number of steps."""
    module = fixed(part.layer, steps[0], image_size=part.side)
    start = time.perf_counter()
    run = torch.compile(module, fullgraph=True, dynamic=False)
    run(part.images[:1])
    found: dict[str, Any] = {"seconds to compile": time.perf_counter() - start}
    for count in steps:
        module.solver.limit.fill_(count)
        found[str(count)] = latency(run, part.images, seconds)
    return found


@cache
def model_for(part: Part, steps: int) -> bytes:
    """The ONNX model of the part's layer at so many steps."""
    made: bytes = onnx_of(program_of(fixed_for(part, steps), part.images[:1]), "transformed").SerializeToString()
    return made


def onnxruntime(part: Part, steps: Sequence[int], seconds: float) -> dict[str, Any]:
    """The exported model, one a number of steps, on one thread."""
    found: dict[str, Any] = {}
    for count in steps:
        start = time.perf_counter()
        model = model_for(part, count)
        exporting = time.perf_counter() - start
        found[str(count)] = {
            **latency(OnnxRuntime(model, threads=1), part.images, seconds),
            "seconds to export": exporting,
            "megabytes": len(model) / 1e6,
        }
    return found


def throughput(part: Part, steps: Sequence[int], seconds: float) -> dict[str, Any]:
    """Images a second of a batch on one thread, of every engine at every number of steps, warm."""
    images = part.images[: part.batch]
    found: dict[str, Any] = {
        "measured": "the median of warm calls",
        "date": time.strftime("%Y-%m-%d"),
        "eager": {"adaptive": rate(part.layer.project, images, seconds)},
        "bounded": {str(most): rate(bounded_for(part, most).project, images, seconds) for most in BOUNDS},
        "compiled": {},
        "onnxruntime": {},
    }
    module = fixed(part.layer, steps[0], image_size=part.side)
    run = torch.compile(module, fullgraph=True, dynamic=False)
    run(images)
    for count in steps:
        module.solver.limit.fill_(count)
        found["eager"][str(count)] = rate(fixed_for(part, count), images, seconds)
        found["compiled"][str(count)] = rate(run, images, seconds)
        found["onnxruntime"][str(count)] = rate(OnnxRuntime(model_for(part, count), threads=1), images, seconds)
    return found


def agreeing(part: Part, steps: Sequence[int]) -> dict[str, Any]:
    """How far onnxruntime is from the module that was exported: of T(x), and of a defended classifier's logits.

    Of large images up to `MANY` steps.
    """
    images = part.images[: AGREEING[part.side]]
    found: dict[str, Any] = {"images": len(images), "at a time": list(BATCHES), "steps": {}}
    for count in (each for each in steps if each <= MANY or part.side < 200):
        found["steps"][str(count)] = float(_apart(OnnxRuntime(model_for(part, count)), fixed_for(part, count), images))
    defended = Defended(fixed_for(part, DEFENDED_STEPS), part.network)
    model = onnx_of(program_of(defended, images), "logits").SerializeToString()
    found["logits"] = {"steps": DEFENDED_STEPS, "apart": float(_apart(OnnxRuntime(model), defended, images))}
    return found


def _apart(run: Run, module: nn.Module, images: Tensor) -> Tensor:
    """The largest difference over images that come in batches of changing sizes; all of them are seen."""
    first, later = images.split([BATCHES[0], len(images) - BATCHES[0]])
    with torch.no_grad():
        return torch.stack([(run(part) - module(part)).abs().max() for part in (first, *later.split(BATCHES[1]))]).max()


def stream(part: Part, steps: Sequence[int]) -> dict[str, Any]:
    """A camera that moves a pixel a frame over a photograph: error at the last of eight frames, cold and warm."""
    side, frames = part.side, 8
    wide = F.interpolate(of_size(224, 4, part.root)[0], scale_factor=(side + frames) / 224, mode="area")
    shown = [wide[:, :, :side, shift : shift + side].contiguous() for shift in range(frames)]
    truth = part.layer.with_solver(EXACT).project(shown[-1])
    found: dict[str, Any] = {"frames": frames, "streams": len(wide)}
    for count in (each for each in steps if each <= STREAM_STEPS):
        module, state = fixed_for(part, count), None
        for frame in shown:
            made, state = module.next(frame, state)
        found[str(count)] = {"cold": error(module(shown[-1]), truth), "warm": error(made, truth)}
        found[str(count)]["still, warm"] = error(_still(module, shown[-1], frames), truth)
    return found


def _still(module: FixedLayer, frame: Tensor, frames: int) -> Tensor:
    """T(x) of a frame that was shown so many times."""
    state: FixedState | None = None
    for _ in range(frames):
        made, state = module.next(frame, state)
    return made


def choices(part: Part, steps: Sequence[int]) -> dict[str, Any]:
    """Why this solver: mean error of T(x) after as many steps of FISTA, and from a start at zero."""
    images = part.images[:32]
    layer = part.layer.within(0).with_solver(EXACT)
    truth, coded = layer.project(images), split_bands(images, layer.split)[1]
    found: dict[str, Any] = {"images": len(images)}
    for count in steps:
        module = fixed(layer, count, image_size=part.side)
        found[str(count)] = {
            "as it is": error(module(images), truth)["mean"],
            "from zero": error(_from_zero(module, images, coded), truth)["mean"],
            "FISTA": error((images - coded + _fista(layer, coded, count)).clamp(0, 1), truth)["mean"],
        }
    return found


def _from_zero(module: FixedLayer, images: Tensor, coded: Tensor) -> Tensor:
    members = torch.zeros(len(images), dtype=torch.int64)
    left, _ = module.solver(coded, members, torch.zeros_like(module.solver.cold(coded, members)))
    return (images - left).clamp(0, 1)


def _fista(layer: SparseTransformationLayer, coded: Tensor, steps: int) -> Tensor:
    """D z after as many steps of FISTA (Beck & Teboulle 2009) from zero, of step length 1 / |D|^2."""
    filters = layer.filters[0]
    spectra = torch.fft.rfft2(filters, s=coded.shape[-2:])
    largest = float(torch.linalg.matrix_norm(spectra.permute(2, 3, 1, 0), ord=2).max()) ** 2
    z = at = coded.new_zeros(len(coded), len(filters), *coded.shape[-2:])
    t = 1.0
    for _ in range(steps):
        moved = at + correlate(filters, coded - convolve(filters, at)) / largest
        after = moved - moved.clamp(-layer.sparsity / largest, layer.sparsity / largest)
        later = (1 + (1 + 4 * t * t) ** 0.5) / 2
        z, at, t = after, after + (t - 1) / later * (after - z), later
    return convolve(filters, z)


def descent_warm(part: Part) -> dict[str, float]:
    """Milliseconds of coordinate descent on a frame, cold and from the codes of the frame a pixel before it."""
    wide = F.interpolate(of_size(224, 4, part.root)[0], scale_factor=(part.side + 1) / 224, mode="area")
    frames = [split_bands(wide[:, :, : part.side, n : n + part.side].contiguous(), part.layer.split)[1] for n in (0, 1)]
    filters, lam = part.layer.filters[0], part.layer.sparsity
    codes = solve(SparseCodingProblem(frames[0], filters, lam), CoordinateDescent()).codes
    taken: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(LEAST):
        for name, start in (("cold", None), ("warm", codes)):
            begin = time.perf_counter()
            solve(SparseCodingProblem(frames[1], filters, lam), CoordinateDescent(), start=start)
            taken[name].append(1e3 * (time.perf_counter() - begin) / len(wide))
    return {name: statistics.median(times) for name, times in taken.items()}


def numbers(text: str) -> tuple[int, ...]:
    """`5,10` as (5, 10)."""
    return tuple(int(part) for part in text.split(","))


def main() -> None:
    """Measures what the file does not have yet, and writes it after each piece."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the image sets")
    parser.add_argument("--weights", type=Path, help="MobileNetV2's, for 224 px")
    parser.add_argument("--work", type=Path, default=Path("latency-work"), help="where what is learned is kept")
    parser.add_argument("--out", type=Path, default=Path("results/performance/latency.json"))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each latency; less for a trial")
    parser.add_argument("--steps", type=numbers, default=STEPS, help="of the curve; fewer for a trial")
    parser.add_argument("--sizes", type=numbers, default=SIZES, help="in pixels; fewer for a trial")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the errors, not of the times")
    parser.add_argument("--share", type=float, default=1.0, help="of all images; less for a trial")
    parser.add_argument("--again", action="append", default=[], help="a piece that is measured anew; several times")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "machine": machine(),
        "share of the images": chosen.share,
        "steps": list(chosen.steps),
        "sizes": {},
    }
    if chosen.out.is_file():
        found |= json.loads(chosen.out.read_text(encoding="utf-8"))
    pieces: dict[str, Callable[[Part], Any]] = {
        "curve": partial(curve, steps=chosen.steps, threads=chosen.threads),
        "eager": partial(eager, steps=chosen.steps, seconds=chosen.seconds),
        "bounded": partial(bounded, seconds=chosen.seconds),
        "onnxruntime": partial(onnxruntime, steps=chosen.steps, seconds=chosen.seconds),
        "compiled": partial(compiled, steps=chosen.steps, seconds=chosen.seconds),
        "throughput": partial(throughput, steps=chosen.steps, seconds=chosen.seconds),
        "agreement": partial(agreeing, steps=chosen.steps),
        "stream": partial(stream, steps=chosen.steps),
        "descent": descent_warm,
        "choices": partial(choices, steps=chosen.steps),
    }
    if unknown := set(chosen.again) - set(pieces):
        parser.error(f"--again {', '.join(sorted(unknown))}: there is no such piece; name some of {', '.join(pieces)}")
    for side, make in parts(chosen.root, chosen.weights, chosen.work, chosen.share).items():
        if side not in chosen.sizes:
            continue
        measured = found["sizes"].setdefault(str(side), {})
        part: Part | None = None
        for name, measure in pieces.items():
            if (name in measured and name not in chosen.again) or (name == "choices" and side != SIZES[0]):
                continue
            part = part or make()
            measured |= {"set": part.name, "batch": part.batch, name: measure(part)}
            print(side, name, json.dumps(measured[name]), file=sys.stderr, flush=True)
            write_json(chosen.out, found)
    from latency_page import table

    print(table(found))


if __name__ == "__main__":
    main()
