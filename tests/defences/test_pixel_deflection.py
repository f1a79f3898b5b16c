import pytest
import torch
from torch import Tensor

from quasinat.defences.class_activation import robust_activation_map
from quasinat.defences.draws import generators
from quasinat.defences.pixel_deflection import NAME, SOURCE_SHARE, PixelDeflection, deflect_pixels
from quasinat.defences.transformation import with_seed
from quasinat.defences.wavelet import wavelet_shrinkage
from quasinat.errors import InputError, UsageError
from quasinat.networks import vgg


def numbered(count: int, channels: int, height: int, width: int) -> Tensor:
    """Images whose pixels all differ, so that a value says where it comes from; float64."""
    values = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width) / (height * width)
    return torch.cat([(values * (1 - 0.01 * c)).expand(count, 1, -1, -1) for c in range(channels)], 1).contiguous()


def slowly(image: Tensor, count: int, window: int, seed: int, passed: Tensor | None) -> tuple[Tensor, set[int]]:
    """One draw after another, in place, as the source's loop; the image and the places that were deflected."""
    (generator,) = generators(image[None], seed, NAME)
    _, height, width = image.shape
    image, places, done = image.clone(), set(), 0
    while done < count:
        for a, b, chance, c, d in torch.rand(count, 5, generator=generator, dtype=torch.float64).tolist():
            y, x = int(a * height), int(b * width)
            if done == count or (passed is not None and chance < float(passed[y, x])):
                continue
            rows = [row for row in range(y - window, y + window + 1) if 0 <= row < height]
            columns = [column for column in range(x - window, x + window + 1) if 0 <= column < width]
            image[:, y, x] = image[:, rows[int(c * len(rows))], columns[int(d * len(columns))]].clone()
            places.add(y * width + x)
            done += 1
    return image, places


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("channels", "height", "width", "count", "window"), [(3, 32, 32, 200, 10), (1, 33, 47, 900, 3), (4, 35, 32, 5, 40)]
)
def test_it_is_the_loop_one_draw_after_another(
    channels: int, height: int, width: int, count: int, window: int, mapped: bool, generator: torch.Generator
) -> None:
    images = torch.rand(3, channels, height, width, generator=generator, dtype=torch.float64)
    maps = torch.rand(3, height, width, generator=generator) if mapped else None
    made = deflect_pixels(images, deflections=count, window=window, maps=maps, seed=7)
    for row in range(3):
        expected, places = slowly(images[row], count, window, 7, None if maps is None else maps[row])
        assert torch.equal(made[row], expected)
        changed = (made[row] != images[row]).any(0).flatten().nonzero().flatten().tolist()
        assert set(changed) <= places
        assert 0 < len(changed) <= count


def test_values_come_from_the_window_and_pixels_stay_whole() -> None:
    height, width, window = 40, 33, 4
    images = numbered(2, 3, height, width)
    # Few deflections, so that no pixel is moved on in these two images: then each value is from within one window.
    made = deflect_pixels(images, deflections=30, window=window, seed=3)
    origins = (made[:, 0] * height * width).round().long()
    assert torch.equal(made, images.flatten(2).gather(2, origins.flatten(1)[:, None].expand(-1, 3, -1)).view_as(made))
    here = torch.arange(height * width).view(height, width)
    down, along = origins // width - here // width, origins % width - here % width
    assert max(int(down.abs().max()), int(along.abs().max())) <= window
    assert 20 < int((origins != here)[0].sum()) <= 30


def test_places_and_sources_are_uniform(generator: torch.Generator) -> None:
    """Chi-squared tests over images with one deflection each, in a window that nearly always is cut at an edge."""
    count, side, window = 3000, 32, 20
    factors = torch.linspace(0.5, 1, count).double()  # so that no image draws what another does
    images = numbered(1, 1, side, side) * factors[:, None, None, None]
    made = deflect_pixels(images, deflections=1, window=window)
    rows, _, ys, xs = (made != images).nonzero().T
    assert len(rows) > 0.98 * count
    assert len(rows.unique()) == len(rows)
    origins = (made[rows, 0, ys, xs] / factors[rows] * side * side).round().long()
    for places, sources in ((ys, origins // side), (xs, origins % side)):
        low, high = (places - window).clamp_min(0), (places + window).clamp_max(side - 1)
        assert ((sources >= low) & (sources <= high)).all()
        inside = (sources - low + torch.rand(len(rows), generator=generator)) / (high - low + 1)  # uniform, if true
        for values, cells in ((inside * 16, 16), (places, side)):
            expected = len(rows) / cells
            statistic = float(((torch.bincount(values.long(), minlength=cells) - expected) ** 2 / expected).sum())
            assert statistic < cells - 1 + 4 * (2 * (cells - 1)) ** 0.5  # mean and four deviations


def test_places_follow_the_map(generator: torch.Generator) -> None:
    """Of a map with four levels, places are deflected in proportion to 1 - map."""
    levels = torch.tensor([0.0, 0.25, 0.5, 1.0])
    maps = levels.repeat_interleave(8).expand(300, 32, 32)
    images = torch.rand(300, 1, 32, 32, generator=generator)
    changed = (deflect_pixels(images, deflections=20, maps=maps) != images).sum((0, 1, 2)).view(4, 8).sum(1).double()
    shares = (1 - levels).double() / (1 - levels).sum()
    assert changed[3] == 0
    total = changed.sum()
    assert total > 0.95 * 300 * 20
    assert torch.allclose(changed / total, shares, atol=4 * 0.5 / float(total) ** 0.5)


def test_a_map_of_ones_moves_nothing_and_one_of_zeros_changes_nothing(generator: torch.Generator) -> None:
    images = torch.rand(3, 3, 32, 40, generator=generator)
    assert torch.equal(deflect_pixels(images, maps=torch.ones(3, 32, 40)), images)
    plain = deflect_pixels(images)
    assert torch.equal(deflect_pixels(images, maps=torch.zeros(3, 32, 40)), plain)
    mixed = torch.cat((torch.ones(1, 32, 40), torch.zeros(2, 32, 40)))
    assert torch.equal(deflect_pixels(images, maps=mixed), torch.cat((images[:1], plain[1:])))
    assert torch.equal(deflect_pixels(images, deflections=0), images)


def test_the_number_is_a_count_or_a_share(generator: torch.Generator) -> None:
    images = torch.rand(1, 1, 224, 224, generator=generator)
    shared = deflect_pixels(images, share=SOURCE_SHARE)
    assert torch.equal(shared, deflect_pixels(images, deflections=200))
    assert 190 < int((shared != images).sum()) <= 200
    small = torch.rand(1, 1, 32, 32, generator=generator)
    assert torch.equal(deflect_pixels(small, share=SOURCE_SHARE), deflect_pixels(small, deflections=4))
    assert int((deflect_pixels(small, deflections=4) != small).sum()) <= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 33, 47)])
def test_it_depends_on_image_and_seed_only(
    channels: int, height: int, width: int, dtype: torch.dtype, generator: torch.Generator
) -> None:
    images = torch.rand(4, channels, height, width, generator=generator, dtype=dtype)
    network = vgg("vgg-small", classes=10, channels=channels).to(dtype)
    for transform in (PixelDeflection(seed=5, shrink=False), PixelDeflection(network, seed=5)):
        made = transform(images)
        assert made.dtype == dtype
        assert made.shape == images.shape
        assert made.min() >= 0
        assert made.max() <= 1
        for row in range(4):
            assert torch.allclose(transform(images[row : row + 1])[0], made[row], atol=1e-5)
        assert torch.equal(transform(images), made)
        assert not torch.equal(with_seed(transform, 6)(images), made)
        afresh = with_seed(transform, None)
        assert not torch.equal(afresh(images), afresh(images))
        assert transform(images[:0]).shape == images[:0].shape
    assert not torch.equal(deflect_pixels(images), deflect_pixels(images, window=9))


def test_the_module_is_map_deflection_and_shrinkage(generator: torch.Generator) -> None:
    images = torch.rand(3, 3, 33, 40, generator=generator)
    network = vgg("vgg-small", classes=10).train()
    maps = robust_activation_map(network, images)
    deflected = deflect_pixels(images, deflections=50, window=4, maps=maps, seed=2)
    options = {"deflections": 50, "window": 4, "seed": 2}
    assert torch.equal(PixelDeflection(network, shrink=False, **options)(images), deflected)
    whole = PixelDeflection(network, sigma=0.06, **options)
    assert torch.equal(whole(images), wavelet_shrinkage(deflected, sigma=0.06))
    assert torch.equal(PixelDeflection(shrink=False, share=0.1)(images), deflect_pixels(images, share=0.1))
    assert all(module.training for module in network.modules())
    with pytest.raises(UsageError, match="no gradient is named"):
        whole(images.requires_grad_())


def test_a_real_classifiers_map_is_spared(generator: torch.Generator) -> None:
    """Where the map is high, fewer pixels change than without it."""
    images = torch.rand(40, 3, 32, 32, generator=generator)
    network = vgg("vgg-small", classes=10, seed=1)
    maps = robust_activation_map(network, images)
    high = maps > 0.7
    assert high.float().mean() > 0.02
    options = {"deflections": 60, "shrink": False}
    mapped = (PixelDeflection(network, **options)(images) != images).any(1)
    blind = (PixelDeflection(**options)(images) != images).any(1)
    assert (mapped & high).sum() < 0.6 * (blind & high).sum()
    assert abs(int(mapped.sum()) - int(blind.sum())) < 0.05 * int(blind.sum())


def test_what_it_refuses() -> None:
    images = torch.rand(2, 3, 32, 32)
    for options, problem in [
        ({"deflections": -1}, "deflections is -1"),
        ({"window": 0}, "window is 0"),
        ({"share": 0.0}, "share of 0"),
        ({"share": 1.5}, "share of 1.5"),
    ]:
        with pytest.raises(UsageError, match=problem):
            PixelDeflection(**options)
        with pytest.raises(UsageError, match=problem):
            deflect_pixels(images, **options)
    with pytest.raises(UsageError, match="sigma is 0"):
        PixelDeflection(sigma=0.0)
    with pytest.raises(UsageError, match="no class activation maps"):
        PixelDeflection(torch.nn.Identity())
    for maps in (torch.full((2, 32, 32), 1.5), torch.full((2, 32, 32), torch.nan)):
        with pytest.raises(InputError, match="leave"):
            deflect_pixels(images, maps=maps)
