"""Non-local means against loops written from the definition, which are scikit-image's where that is exact."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_nl_means
from torch import Tensor

from quasinat.attacks import Linf, pgd
from quasinat.data.photographs import photograph
from quasinat.defences.cielab import from_lab, to_lab
from quasinat.defences.non_local_means import NonLocalMeans, non_local_means
from quasinat.errors import InputError, UsageError

Weight = Callable[[np.ndarray, np.ndarray], float]


@pytest.fixture(scope="module")
def tiles() -> Tensor:
    whole = photograph("coffee", colour=True).double()
    return torch.stack([whole[:, 60:95, 80:121], whole[:, 100:135, 20:61]])


def pixel_by_pixel(
    image: Tensor, search: int, patch: int, weight: Callable[[np.ndarray], float], inside: bool, pixels: list[Any]
) -> Tensor:
    """The weighted means at some pixels; `weight` is a function of the squared differences of two patches."""
    values = image.permute(1, 2, 0).numpy()
    reach, half = search // 2, patch // 2
    border = reach + half
    wide = np.pad(values, ((border, border), (border, border), (0, 0)), mode="reflect")
    height, width = values.shape[:2]

    def around(row: int, column: int) -> np.ndarray:
        return wide[row + border - half : row + border + half + 1, column + border - half : column + border + half + 1]

    found = []
    for row, column in pixels:
        total, weights = np.zeros(values.shape[2]), 0.0
        for r in range(row - reach, row + reach + 1):
            for c in range(column - reach, column + reach + 1):
                if inside and not (0 <= r < height and 0 <= c < width):
                    continue
                own = weight((around(row, column) - around(r, c)) ** 2)
                total, weights = total + own * wide[r + border, c + border], weights + own
        found.append(total / weights)
    return torch.from_numpy(np.stack(found))


def gaussian(patch: int) -> np.ndarray:
    steps = np.arange(patch) - patch // 2
    row = np.exp(-(steps**2) / (2 * ((patch - 1) / 4) ** 2))
    return np.outer(row, row) / row.sum() ** 2


def some_pixels(height: int, width: int) -> list[tuple[int, int]]:
    """The corners, the edges, and the inside."""
    return [(r, c) for r in (0, 1, 6, 17, height - 2, height - 1) for c in (0, 3, 20, width - 1)]


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("window", ["flat", "gaussian"])
@pytest.mark.parametrize(("search", "patch", "strength"), [(11, 3, 4 / 255), (7, 5, 0.1), (5, 1, 0.05)])
def test_it_is_the_loop_of_its_definition(
    tiles: Tensor, channels: int, window: Any, search: int, patch: int, strength: float
) -> None:
    image = tiles[0, :channels]
    shares = np.full((patch, patch), 1 / patch**2) if window == "flat" or patch == 1 else gaussian(patch)
    pixels = some_pixels(*image.shape[1:])
    truth = pixel_by_pixel(
        image, search, patch, lambda d: np.exp(-(shares * d.mean(2)).sum() / strength**2), False, pixels
    )
    found = non_local_means(
        tiles[:, :channels], search=search, patch=patch, strength=strength, window=window, colour="joint"
    )[0]
    at_pixels = torch.stack([found[:, row, column] for row, column in pixels])
    assert torch.allclose(at_pixels, truth, rtol=0, atol=1e-12)
    assert (at_pixels - torch.stack([image[:, r, c] for r, c in pixels])).abs().max() > 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_the_loop_is_scikit_images(tiles: Tensor, channels: int) -> None:
    """With scikit-image's quick exp, its cut-off and its search inside the frame, the loop gives its numbers."""
    search, patch, strength = 11, 3, 0.05
    shares = gaussian(patch)

    def weight(squares: np.ndarray) -> float:
        rows = (shares[..., None] * squares).sum((1, 2)) / squares.shape[2] / strength**2
        if rows[:-1].sum() > 5:
            return 0.0
        high = np.int64(np.int32(1512775.3951951856938 * -rows.sum())) + 1072632447  # Schraudolph 1999
        return float((high << 32).view(np.float64))

    image = tiles[0, :channels]
    pixels = some_pixels(*image.shape[1:])
    loop = pixel_by_pixel(image, search, patch, weight, True, pixels)
    pixel_last = image.permute(1, 2, 0).numpy()
    one = channels == 1  # which scikit-image wants without its axis
    theirs = denoise_nl_means(
        pixel_last[..., 0] if one else pixel_last,
        patch,
        search // 2,
        strength,
        fast_mode=False,
        channel_axis=None if one else 2,
    ).reshape(pixel_last.shape)
    at_pixels = np.stack([theirs[row, column] for row, column in pixels])
    assert np.allclose(loop.numpy(), at_pixels, rtol=0, atol=1e-12)


def test_inside_the_frame_it_is_scikit_images(tiles: Tensor) -> None:
    """Directly, and as near as its quick exp allows: a mean of weights wrong by up to 6 % over values near by."""
    image = 0.5 + 0.1 * (tiles[0] - 0.5)  # so that no weight is below exp(-5), where scikit-image cuts
    ours = non_local_means(image[None], search=7, strength=0.06, window="gaussian", colour="joint")[0]
    theirs = denoise_nl_means(image.permute(1, 2, 0).numpy(), 3, 3, 0.06, fast_mode=False, channel_axis=2)
    error = (ours - torch.from_numpy(theirs).permute(2, 0, 1))[:, 4:-4, 4:-4].abs()
    moved = (ours - image)[:, 4:-4, 4:-4].abs()
    assert error.max() < 0.06 * 0.1
    assert error.mean() < 0.05 * moved.mean()


def test_colour_is_filtered_in_cielab(tiles: Tensor) -> None:
    lightness, chroma = to_lab(tiles)
    options: dict[str, Any] = {"search": 7, "strength": 0.03}
    truth = from_lab(non_local_means(lightness, **options), non_local_means(chroma + 0.5, **options) - 0.5)
    found = non_local_means(tiles, **options)
    assert torch.allclose(found, truth.clamp(0, 1), rtol=0, atol=1e-12)
    assert not torch.allclose(found, non_local_means(tiles, colour="joint", **options), rtol=0, atol=1e-3)


@pytest.mark.parametrize("colour", ["lab", "joint"])
def test_what_it_leaves_alone(tiles: Tensor, colour: Any) -> None:
    flat = tiles[:, :, :1, :1].expand(2, 3, 32, 33)
    assert torch.allclose(non_local_means(flat, colour=colour), flat, rtol=0, atol=1e-12)
    assert torch.allclose(non_local_means(tiles, search=1, colour=colour), tiles, rtol=0, atol=1e-12)
    assert torch.allclose(non_local_means(tiles, strength=1e-5, colour=colour), tiles, rtol=0, atol=1e-6)


def test_great_strength_is_the_mean_of_the_window(tiles: Tensor) -> None:
    found = non_local_means(tiles, search=5, strength=1e6, colour="joint")
    wide = torch.nn.functional.pad(tiles, (2, 2, 2, 2), mode="reflect")
    assert torch.allclose(found, torch.nn.functional.avg_pool2d(wide, 5, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(3, 3, 33, 40), (2, 1, 32, 32), (2, 4, 47, 35)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_does_not_depend_on_its_batch(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator
) -> None:
    images = torch.rand(shape, generator=generator, dtype=dtype)
    images[0, :, :20] = 1.0
    together = non_local_means(images, strength=0.1)
    alone = torch.cat([non_local_means(images[i : i + 1], strength=0.1) for i in range(len(images))])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-14)
    assert together.dtype == dtype
    assert 0 <= together.min() < together.max() <= 1
    assert non_local_means(images[:0]).shape == (0, *shape[1:])


def test_single_precision_is_near_to_double(tiles: Tensor) -> None:
    assert torch.allclose(non_local_means(tiles.float()).double(), non_local_means(tiles), rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_is_the_derivative(tiles: Tensor, channels: int, generator: torch.Generator) -> None:
    images = (0.2 + 0.6 * tiles[:1, :channels, :8, :9]).requires_grad_()
    options: dict[str, Any] = {"search": 5, "strength": 0.05}
    assert torch.autograd.gradcheck(lambda x: non_local_means(x, **options), images, fast_mode=True)
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((non_local_means(images, **options) * direction).sum(), images)
    with torch.no_grad():
        step = 1e-6 * direction
        ahead, behind = non_local_means(images + step, **options), non_local_means(images - step, **options)
    quotient = ((ahead - behind) * direction).sum() / 2e-6
    assert torch.allclose((gradient * direction).sum(), quotient, rtol=1e-6)


def test_white_has_a_gradient() -> None:
    images = torch.ones(1, 3, 32, 32).requires_grad_()
    (gradient,) = torch.autograd.grad(NonLocalMeans()(images).sum(), images)
    assert (gradient > 0.2).all()  # a corner is in fewer windows than a pixel inside
    assert torch.allclose(gradient.sum(), torch.tensor(images.numel() * 1.0), rtol=1e-3)


def test_the_module_is_the_function(tiles: Tensor) -> None:
    module = NonLocalMeans(search=7, patch=5, strength=0.04, window="gaussian", colour="joint")
    options = {"search": 7, "patch": 5, "strength": 0.04, "window": "gaussian", "colour": "joint"}
    assert module.settings() == options
    assert module(tiles).equal(non_local_means(tiles, **options))  # type: ignore[arg-type]
    assert NonLocalMeans()(tiles).equal(non_local_means(tiles))


def test_it_can_be_attacked(tiles: Tensor) -> None:
    classifier = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model = torch.nn.Sequential(NonLocalMeans(), classifier)
    images = tiles.float()
    labels = model(images).argmax(1)
    result = pgd(model, images, labels, budget=Linf(0.3), steps=3)
    assert (model(result.images).gather(1, labels[:, None]) < model(images).gather(1, labels[:, None])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": 10}, "search is 10; give an odd number"),
        ({"search": -1}, "search is -1"),
        ({"patch": 2}, "patch is 2"),
        ({"strength": 0.0}, "strength is 0.0"),
        ({"strength": float("inf")}, "strength is inf"),
        ({"window": "gausian"}, "did you mean 'gaussian'"),
        ({"colour": "rgb"}, "choose one of: lab, joint"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NonLocalMeans(**options) if not {"window", "colour"} & set(options) else _unchecked(options)


def _unchecked(options: dict[str, Any]) -> None:
    from quasinat.defences.non_local_means import _check_options

    _check_options(11, 3, 0.1, options.get("window", "flat"), options.get("colour", "lab"))


def test_images_that_are_too_small(tiles: Tensor) -> None:
    with pytest.raises(
        InputError, match="6 x 41 pixels are too small for a search of 11 and patches of 3; give at least 7"
    ):
        non_local_means(tiles[:, :, :6])
    assert non_local_means(tiles[:, :, :7]).shape == (2, 3, 7, 41)
