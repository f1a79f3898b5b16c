"""benchmarks/pyramid.py: with one level it is the layer, and further levels change what is coarser."""

import torch

from layers import universal
from pages import page_module


def test_with_one_level_it_is_the_layer() -> None:
    made, layer = page_module("pyramid"), universal(3)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alone = made.pyramid(layer, images, 2, (layer.sparsity,)).clamp(0, 1)
    torch.testing.assert_close(alone, layer.project(images), rtol=0, atol=1e-5)


def test_a_coarser_level_takes_a_weak_pattern_out_of_the_low_band_and_leaves_the_brightness() -> None:
    made, layer = page_module("pyramid"), universal(3)
    # Mostly below the split, and weaker than lambda on any grid.
    wave = 0.02 * torch.sin(torch.arange(64) * 2 * torch.pi / 32)
    images = 0.5 + wave.expand(1, 3, 64, 64)
    swing = [(made.pyramid(layer, images, 2, (0.2,) * levels).std() / images.std()).item() for levels in (1, 2, 3)]
    assert swing[0] > 0.8
    assert swing[2] < swing[1] < swing[0]
    flat = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(made.pyramid(layer, flat, 2, (0.2, 0.2, 0.2)), flat, rtol=0, atol=1e-4)
