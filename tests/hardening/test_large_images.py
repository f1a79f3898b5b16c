"""Large images in tiles: the memory follows the tiles, not the image. The 4096 x 4096 one runs with `make soak`."""

import os
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from layers import stratified
from quasinat.layer import SparseTransformationLayer
from quasinat.tiling import LARGE, project_in_tiles, project_large

PER_PIXEL = 120  # bytes beside the image and its projection, of one channel: the bands and their spectra


def picture(height: int, width: int) -> Tensor:
    """Smooth waves with edges."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    waves = 0.5 + 0.3 * torch.sin(rows / 37) * torch.cos(columns / 23)
    return (waves + 0.2 * ((rows // 64 + columns // 96) % 2)).clamp(0, 1)[None, None].float()


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def measured(layer: SparseTransformationLayer, image: Tensor, tile: int) -> tuple[Tensor, int, float]:
    """T(x) in tiles, the most bytes that it took beside what there was, and the seconds."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = status("VmRSS"), time.perf_counter()
    made = project_in_tiles(layer, image, tile=tile)
    return made, status("VmHWM") - before, time.perf_counter() - began


linux = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no /proc to measure memory with")


@linux
def test_an_image_that_is_not_square_takes_memory_by_the_pixel() -> None:
    layer = stratified(1)
    measured(layer, picture(200, 150), 64)  # what is loaded once
    image = picture(1400, 300)
    made, memory, _ = measured(layer, image, 128)
    assert made.shape == image.shape
    assert bool(((made >= 0) & (made <= 1)).all())
    tiles = 8 * 4 * 16 * 2**20  # eight maps of a group of tiles, before and after a step and in their spectra
    assert memory < tiles + PER_PIXEL * image.numel()
    assert float((made - image).square().mean()) < 1e-3


@linux
@pytest.mark.skipif(not os.environ.get("QUASINAT_SOAK"), reason="minutes: set QUASINAT_SOAK=1, or make soak")
def test_four_thousand_pixels_square() -> None:
    layer, image = stratified(1), picture(4096, 4096)
    assert image.numel() > LARGE
    made, memory, seconds = measured(layer, image, 512)
    print(f"4096 x 4096: {memory / 1e6:.0f} MB, {seconds:.0f} s")
    assert memory < 8 * 4 * 16 * 2**20 + PER_PIXEL * image.numel()
    assert bool(((made >= 0) & (made <= 1)).all())
    assert torch.equal(project_large(layer, image), made)
