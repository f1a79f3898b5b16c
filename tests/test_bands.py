"""benchmarks/bands.py on a network that sees nothing but the brightness, which is all in the band that passes."""

import torch
from torch import Tensor, nn

from layers import universal
from pages import page_module


class Brightness(nn.Module):
    """Class 1 of images that are brighter than mid-grey in the mean."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(1)
        return 40 * torch.stack([0.5 - mean, mean - 0.5], 1)


def test_an_attack_on_the_brightness_comes_through_the_band_that_passes() -> None:
    made = page_module("bands")
    levels = torch.tensor([0.3, 0.49, 0.51, 0.7])
    texture = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)) - 0.5
    images = levels.view(-1, 1, 1, 1) + 0.1 * (texture - texture.mean((1, 2, 3), keepdim=True))
    found = made.bands(Brightness(), universal(3), images, (levels > 0.5).long())
    assert found["clean"]["value"] == 1
    assert {each["value"] for each in found["clean, behind the layer"].values()} == {1}
    for attack in found["attacks"].values():  # each turns the two that are near mid-grey
        for ways in (attack, *attack["behind the layer"].values()):
            assert (ways["both"]["value"], ways["low"]["value"], ways["high"]["value"]) == (0.5, 0.5, 1)
        assert attack["moved, low"] > 5 * attack["moved, high"]
