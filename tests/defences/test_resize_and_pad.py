"""Random resizing and padding: the picture is found again by trying every size at every place."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor, nn

from quasinat.attacks import Linf, pgd
from quasinat.defences.resize_and_pad import Interpolation, ResizeAndPad, enlarged, resize_and_pad
from quasinat.defences.transformation import with_seed
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from sparse_coding.unchecked import unchecked

EVERY_KIND = [ResizeAndPad(), ResizeAndPad(interpolation="bilinear"), ResizeAndPad(keep_size=True, fill=0.5)]
every_kind = pytest.mark.parametrize("module", EVERY_KIND, ids=["nearest", "bilinear", "one size"])


def resized(image: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """One image at another size, by numpy or by Pillow."""
    if interpolation == "nearest":
        rows = [int(np.floor(i * image.shape[1] / height + 1e-9)) for i in range(height)]
        columns = [int(np.floor(i * image.shape[2] / width + 1e-9)) for i in range(width)]
        return image[:, rows][:, :, columns]
    planes = [Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.BILINEAR) for plane in image]
    return torch.stack([torch.from_numpy(np.array(plane)) for plane in planes])


def places_of(image: Tensor, padded: Tensor, sizes: list[tuple[int, int]], interpolation: Interpolation, fill: float):
    """Every (height, width, top, left) at which the padded image holds the image, and nothing else but the filling."""
    found = []
    for height, width in sizes:
        picture = resized(image, height, width, interpolation)
        for top in range(padded.shape[1] - height + 1):
            for left in range(padded.shape[2] - width + 1):
                canvas = torch.full_like(padded, fill)
                canvas[:, top : top + height, left : left + width] = picture
                if (canvas - padded).abs().max() < 1e-5:
                    found.append((height, width, top, left))
    return found


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("shape", "canvas", "sizes"),
    [
        ((3, 32, 32), (36, 36), [(s, s) for s in range(32, 36)]),
        ((1, 33, 33), (37, 37), [(s, s) for s in range(33, 37)]),
        ((3, 40, 50), (44, 55), [(40, 50), (41, 51), (42, 53), (43, 54)]),  # 51.25, 52.5 and 53.75, rounded
        ((2, 50, 40), (55, 44), [(50, 40), (51, 41), (53, 42), (54, 43)]),
    ],
)
def test_the_picture_is_at_one_place_of_one_size(
    shape: tuple[int, int, int],
    canvas: tuple[int, int],
    sizes: list[tuple[int, int]],
    interpolation: Interpolation,
    generator: torch.Generator,
) -> None:
    images = 0.1 + 0.8 * torch.rand(6, *shape, generator=generator)
    for fill in (0.0, 0.5):
        padded = resize_and_pad(images, interpolation=interpolation, fill=fill)
        assert padded.shape == (6, shape[0], *canvas)
        places = [places_of(image, one, sizes, interpolation, fill) for image, one in zip(images, padded, strict=True)]
        assert all(len(found) == 1 for found in places)
        assert len({found[0] for found in places}) > 1
    assert ResizeAndPad(interpolation=interpolation, fill=0.5)(images).equal(padded)


def test_every_size_and_place_is_drawn_as_often_as_it_should_be() -> None:
    count = 8000
    values = torch.linspace(0.1, 1, count)[:, None, None, None]
    padded = resize_and_pad(values.expand(-1, 1, 32, 32))
    inside = padded[:, 0] > 0
    heights, widths = inside.any(2).sum(1), inside.any(1).sum(1)
    assert heights.equal(widths)
    tops, lefts = inside.any(2).int().argmax(1), inside.any(1).int().argmax(1)
    drawn = Counter(zip(heights.tolist(), tops.tolist(), lefts.tolist(), strict=True))
    expected = {
        (size, top, left): count / 4 / (37 - size) ** 2
        for size in range(32, 36)
        for top in range(37 - size)
        for left in range(37 - size)
    }
    assert set(drawn) == set(expected)
    observed = [drawn[pattern] for pattern in expected]
    assert scipy.stats.chisquare(observed, list(expected.values())).pvalue > 1e-3


def test_seeds_draw_every_pattern_of_one_image() -> None:
    image = torch.full((1, 1, 32, 32), 0.5)
    seen = {tuple((resize_and_pad(image, seed=seed) > 0).nonzero()[0].tolist()) for seed in range(600)}
    assert seen == {(0, 0, top, left) for top in range(5) for left in range(5)}


def test_the_canvases_and_the_number_of_patterns_are_the_sources() -> None:
    assert [enlarged(side) for side in (32, 299, 224, 128, 64)] == [36, 331, 248, 142, 71]
    assert sum((331 - size + 1) ** 2 for size in range(299, enlarged(299))) == 12528  # as the paper counts them
    sides = [enlarged(side) for side in range(32, 600)]
    assert sides == sorted(sides)
    assert all(large > side for side, large in enumerate(sides, 32))


def test_a_larger_canvas(generator: torch.Generator) -> None:
    images = torch.rand(40, 1, 32, 32, generator=generator) + 1e-3
    padded = resize_and_pad(images.clamp(0, 1), largest=48)
    assert padded.shape == (40, 1, 48, 48)
    sizes = (padded[:, 0] > 0).any(2).sum(1)
    assert sizes.min() < 36 < 44 < sizes.max()
    assert sizes.max() < 48


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeping_the_size_brings_the_canvas_back(dtype: torch.dtype, generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 33, 40, generator=generator, dtype=dtype)
    canvas = resize_and_pad(images, seed=4)
    back = resize_and_pad(images, keep_size=True, seed=4)
    assert back.shape == images.shape
    assert back.dtype == dtype
    for large, small in zip(canvas.float(), back.float(), strict=True):
        torch.testing.assert_close(small, resized(large, 33, 40, "bilinear"), rtol=0, atol=1e-5)


@every_kind
def test_the_gradient_is_the_finite_difference(module: ResizeAndPad, generator: torch.Generator) -> None:
    images = (torch.rand(3, 2, 32, 35, generator=generator) * 0.9 + 0.05).double()
    watched = images.clone().requires_grad_()
    output = module(watched)
    weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((output * weights).sum(), watched)
    for _ in range(5):
        direction = torch.rand(images.shape, generator=generator, dtype=torch.float64) - 0.5
        step = 1e-9  # less than single precision resolves, which the draws are made from: they stay
        difference = (module(images + step * direction) - module(images - step * direction)) / (2 * step)
        assert (difference * weights).sum().item() == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_white_images_have_the_whole_gradient(interpolation: Interpolation) -> None:
    images = torch.ones(4, 1, 32, 32, requires_grad=True)
    padded = resize_and_pad(images, interpolation=interpolation)
    assert padded.amax() <= 1
    (gradient,) = torch.autograd.grad(padded.sum(), images)
    torch.testing.assert_close(gradient.sum(), (padded.detach() > 0.5).sum().float())


@every_kind
def test_draws_are_the_images_own_and_the_seeds(module: ResizeAndPad, generator: torch.Generator) -> None:
    images = torch.rand(9, 3, 33, 32, generator=generator)
    padded = module(images)
    assert padded.equal(module(images))
    for number in (0, 4, 8):
        assert padded[number].equal(module(images[number : number + 1])[0])
    assert not padded.equal(with_seed(module, 1)(images))
    fresh = with_seed(module, None)
    torch.manual_seed(3)
    first, second = fresh(images), fresh(images)
    assert not first.equal(second)
    torch.manual_seed(3)
    assert fresh(images).equal(first)
    assert module(images[:0]).shape == (0, *padded.shape[1:])
    assert padded.amin() >= 0
    assert padded.amax() <= 1


class Pooled(nn.Module):
    """A classifier of images of any size that sees where things are: by sums of weighted pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 5)
        self.convolution.weight.data = torch.randn(4, 3, 5, 5, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images - 0.5).relu().sum((2, 3)) / 100


def test_an_attack_climbs_along_the_exact_gradient(generator: torch.Generator) -> None:
    images = torch.rand(4, 3, 32, 32, generator=generator) * 0.8 + 0.1
    model = Defended(ResizeAndPad(), Pooled()).eval()
    with torch.no_grad():
        labels = model(images).argmax(1)
    result = pgd(model, images, labels, budget=Linf(0.1), steps=10)
    assert result.success.float().mean() > 0.5


def test_what_is_refused() -> None:
    images = torch.zeros(1, 3, 32, 40)
    for largest in (32, 20):
        with pytest.raises(UsageError, match=f"largest is {largest} for images of 32 x 40 pixels; give at least 33"):
            ResizeAndPad(largest=largest)(images)
    with pytest.raises(UsageError, match="largest is 0"):
        ResizeAndPad(largest=0)
    for fill in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="fill is"):
            ResizeAndPad(fill=fill)
    with unchecked(), pytest.raises(UsageError, match="unknown interpolation 'nearst'; did you mean 'nearest'"):
        ResizeAndPad(interpolation="nearst")
    with pytest.raises(InputError, match="31 x 32 pixels are too small for ResizeAndPad"):
        ResizeAndPad()(torch.zeros(1, 3, 31, 32))
    with pytest.raises(InputError, match="NaN"):
        ResizeAndPad()(torch.full((1, 3, 32, 32), torch.nan))
