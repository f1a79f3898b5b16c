"""One image of 4096 x 4096 pixels through a layer, in tiles: seconds, and the memory that it takes beside itself.

    python benchmarks/large_image.py --out results/reliability/large.json

On Linux, whose /proc tells the most memory that a process held. One thread and one channel; a layer of three strata of
8 filters of 5 x 5, learned in the run from the built-in photographs. Minutes; the memory does not mind a busy machine.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import quasinat as qn
from quasinat.files import write_json
from quasinat.layer import SparseTransformationLayer
from quasinat.tiling import TILE, TOGETHER, project_in_tiles

SIDE, FILTERS = 4096, 8
PER_PIXEL = 120  # bytes beside the image and its projection, of one channel: the bands and their spectra
TILES = 16 * FILTERS * 4 * TOGETHER  # bytes: sixteen times the maps of the tiles that are coded together


def picture(height: int, width: int) -> Tensor:
    """Smooth waves with edges, `1 1 height width`."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    waves = 0.5 + 0.3 * torch.sin(rows / 37) * torch.cos(columns / 23)
    return (waves + 0.2 * ((rows // 64 + columns // 96) % 2)).clamp(0, 1)[None, None].float()


def status(name: str) -> int:
    """Bytes that the process holds (`VmRSS`), or held at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def measured(layer: SparseTransformationLayer, image: Tensor, tile: int) -> tuple[Tensor, int, float]:
    """T(x) in tiles, the most bytes that it took beside what there was, and the seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most that was held
    before, began = status("VmRSS"), time.perf_counter()
    made = project_in_tiles(layer, image, tile=tile)
    return made, status("VmHWM") - before, time.perf_counter() - began


def bound(pixels: int) -> int:
    """The bytes that it has to do with: those of the tiles, and so many a pixel."""
    return TILES + PER_PIXEL * pixels


def learned() -> SparseTransformationLayer:
    """The layer, of the built-in photographs."""
    images = qn.data.photographs(train_per_class=40, test_per_class=1).train_images
    strata = qn.fit_strata(images, count=3, neighbours=5, epochs=2, seed=0)
    dictionaries = qn.learn_dictionaries(images, strata, filters=FILTERS, size=5, images_each=40)
    return SparseTransformationLayer(strata, dictionaries, sparsity=0.2)


def result(path: str, side: int) -> dict[str, Any]:
    """The result file of an image of so many pixels squared; for a process that has learned nothing.

    What learning took and gave back would be there to be used again, and would not count.
    """
    torch.set_num_threads(1)
    layer = SparseTransformationLayer.load(path)
    measured(layer, picture(40, 40), TILE)  # what is loaded once
    image = picture(side, side)
    made, memory, seconds = measured(layer, image, TILE)
    if not bool(((made >= 0) & (made <= 1)).all()):
        raise RuntimeError("T(x) leaves [0, 1]")
    return {
        "side": side,
        "tile": TILE,
        "filters": FILTERS,
        "seconds": round(seconds, 1),
        "memory, MB": round(memory / 1e6, 1),
        "bytes a pixel": round(memory / image.numel(), 1),
        "bound, MB": round(bound(image.numel()) / 1e6, 1),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=SIDE, help="in pixels; less for a trial")
    parser.add_argument("--out", type=Path, default=Path("results/reliability/large.json"))
    chosen = parser.parse_args()
    from sparse_coding import machine

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        path = str(Path(folder) / "layer.stl")
        learned().save(path)
        made = pool.apply(result, (path, chosen.side))
    write_json(chosen.out, made | {"machine": machine()})
    print(made)


if __name__ == "__main__":
    main()
