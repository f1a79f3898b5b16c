"""Large images in tiles: the memory follows the tiles, not the image. The 4096 x 4096 one runs with `make soak`."""

import json
import os

import pytest
import torch

from layers import stratified
from pages import ROOT, page_module
from quasinat.tiling import LARGE, project_large

large = page_module("large_image")
linux = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no /proc to measure memory with")


@linux
def test_an_image_that_is_not_square_takes_memory_by_the_pixel() -> None:
    layer = stratified(1)
    large.measured(layer, large.picture(200, 150), 64)  # what is loaded once
    image = large.picture(1400, 300)
    made, memory, _ = large.measured(layer, image, 128)
    assert made.shape == image.shape
    assert bool(((made >= 0) & (made <= 1)).all())
    assert memory < large.bound(image.numel())
    assert float((made - image).square().mean()) < 1e-3


@linux
@pytest.mark.skipif(not os.environ.get("QUASINAT_SOAK"), reason="minutes: set QUASINAT_SOAK=1, or make soak")
def test_four_thousand_pixels_square() -> None:
    layer, image = stratified(1), large.picture(4096, 4096)
    assert image.numel() > LARGE
    made, memory, _ = large.measured(layer, image, 512)
    assert memory < large.bound(image.numel())
    assert bool(((made >= 0) & (made <= 1)).all())
    assert torch.equal(project_large(layer, image), made)


def test_the_committed_image_keeps_to_the_bound() -> None:
    result = json.loads((ROOT / "results/reliability/large.json").read_text(encoding="utf-8"))
    pixels = result["side"] ** 2
    assert result["side"] == large.SIDE
    assert large.bound(pixels) == pytest.approx(1e6 * result["bound, MB"], abs=1e5)  # to a tenth of a megabyte
    assert 4 * pixels < 1e6 * result["memory, MB"] < large.bound(pixels)  # T(x) alone is the first
    assert result["bytes a pixel"] == pytest.approx(1e6 * result["memory, MB"] / pixels, rel=1e-2)
