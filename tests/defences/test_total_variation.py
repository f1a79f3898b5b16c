import math

import numpy as np
import pytest
import torch
from torch import Tensor

from quasinat.data import photographs
from quasinat.defences._kernels import binding
from quasinat.defences.total_variation import (
    TotalVariation,
    inpainted,
    kept_values,
    objective,
    total_variation,
)
from quasinat.defences.transformation import with_seed
from quasinat.errors import InputError, UsageError

OPTIONS = {"weight": 0.03, "steps": 3000, "tolerance": 0.0}


@pytest.fixture(scope="module")
def photos() -> Tensor:
    return photographs(48, colour=True, train_per_class=1, test_per_class=1).train_images[:3].double()


def differences(height: int, width: int) -> object:
    """The forward differences of an image in one row of numbers, 0 in the last column and row, as a sparse matrix."""
    from scipy import sparse

    def along(size: int) -> object:
        ends = np.append(-np.ones(size - 1), 0.0)
        return sparse.diags([ends, np.ones(size - 1)], [0, 1])

    right = sparse.kron(sparse.eye(height), along(width))
    return sparse.vstack([right, sparse.kron(along(height), sparse.eye(width))]).tocsc()


def by_split_bregman(image: Tensor, kept: Tensor, weight: float, steps: int) -> tuple[Tensor, float]:
    """Goldstein & Osher's iteration for one channel, its linear system factorised; and how far it is from its end."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    gradient = differences(*image.shape)
    mask, data, penalty = kept.numpy().ravel(), image.numpy().ravel(), 4 * weight
    system = splu((sparse.diags(mask) + penalty * gradient.T @ gradient).tocsc())
    d = b = np.zeros(2 * data.size)
    for _ in range(steps):
        z = system.solve(mask * data + penalty * gradient.T @ (d - b))
        sought = (gradient @ z + b).reshape(2, -1)
        length = np.maximum(np.sqrt((sought**2).sum(0)), 1e-30)
        d = (sought * np.maximum(1 - weight / penalty / length, 0)).ravel()
        b = b + gradient @ z - d
    return torch.from_numpy(z).view(image.shape), float(np.abs(gradient @ z - d).max())


@pytest.mark.parametrize(("keep", "weight"), [(0.5, 0.03), (0.2, 0.03), (0.5, 0.2), (1.0, 0.1)])
def test_it_reaches_the_objective_of_exact_split_bregman(keep: float, weight: float, photos: Tensor) -> None:
    images = photos[:1, :1, :32, :40]
    kept = kept_values(images, 1 - keep, 0)
    reference, violation = by_split_bregman(images[0, 0], kept[0, 0], weight, 2000)
    least = objective(reference[None, None], images, kept, weight)
    assert violation < 1e-4
    exact = inpainted(images, kept, weight=weight, steps=4000, tolerance=0.0)
    assert abs(objective(exact, images, kept, weight) / least - 1) < 2e-4
    usual = total_variation(images, drop=1 - keep, weight=weight)
    assert objective(usual, images, kept, weight) / least - 1 < 0.01


def test_the_usual_steps_come_close_to_many(photos: Tensor) -> None:
    kept = kept_values(photos, 0.5, 0)
    many = objective(inpainted(photos, kept, **OPTIONS), photos, kept, 0.03)
    usual = objective(total_variation(photos), photos, kept, 0.03)
    rough = objective(total_variation(photos, steps=3), photos, kept, 0.03)
    assert (usual >= many * (1 - 1e-6)).all()
    assert (usual < 1.005 * many).all()
    close = objective(total_variation(photos, steps=1000, tolerance=2e-6), photos, kept, 0.03)
    assert (close < 1.0005 * many).all()
    assert (rough < 1.3 * many).all()
    assert (rough > usual).all()


def test_it_agrees_with_chambolle(photos: Tensor) -> None:
    from skimage.restoration import denoise_tv_chambolle

    for weight in (0.03, 0.1):
        ours = total_variation(photos[:1, :2], drop=0.0, **(OPTIONS | {"weight": weight}))
        theirs = denoise_tv_chambolle(
            photos[0, :2].numpy(), weight=weight, max_num_iter=3000, eps=1e-13, channel_axis=0
        )
        assert torch.allclose(ours[0], torch.from_numpy(theirs), atol=1e-3)


def smoothed(result: Tensor, image: Tensor, weight: float) -> Tensor:
    """What scikit-image's isotropic `denoise_tv_bregman` minimises, for its weight 1 / `weight`, times ours.

    Its rule takes a gradient of length s to a s / (1 + a) with a = s penalty, which is the proximal map of the
    potential below; its frame is fixed: the second row and column before the first, the last ones after the last.
    """
    penalty = 2 / weight
    framed = torch.cat([result, image[:, -1:]], 1)
    framed_below = torch.cat([result, image[-1:]], 0)
    length = (framed.diff(dim=1).square() + framed_below.diff(dim=0).square()).sqrt() * penalty
    a = (length + (length.square() + 4 * length).sqrt()) / 2
    potential = (1 + a - (1 + a).log() + 1 / (1 + a) - 1 / (2 * (1 + a).square()) - 1.5) / penalty
    before = (result[:, 0] - image[:, 1]).square().sum() + (result[0] - image[1]).square().sum()
    return (result - image).square().sum() / 2 + weight * (potential.sum() + penalty / 2 * before)


@pytest.mark.parametrize("weight", [0.03, 0.1])
def test_it_is_plain_where_scikit_images_bregman_is_smoothed(weight: float, photos: Tensor) -> None:
    from skimage.restoration import denoise_tv_bregman

    image = photos[0, 1]
    array = denoise_tv_bregman(image.numpy(), weight=1 / weight, max_num_iter=20000, eps=1e-13, isotropic=True)
    theirs = torch.from_numpy(array).requires_grad_()
    loss = smoothed(theirs, image, weight)
    (slope,) = torch.autograd.grad(loss, theirs)
    assert slope.abs().max() < 1e-6  # they are at the minimum of this, so weights and frame are as we say
    theirs = theirs.detach()
    ours = total_variation(image[None, None], drop=0.0, **(OPTIONS | {"weight": weight}))
    assert smoothed(ours[0, 0], image, weight) > loss
    everything = torch.ones_like(ours)
    plain, plain_theirs = (
        objective(result, image[None, None], everything, weight) for result in (ours, theirs[None, None])
    )
    assert 0.85 * plain_theirs < plain < plain_theirs
    inside = (ours[0, 0] - theirs)[8:-8, 8:-8]
    assert inside.square().mean().sqrt() < weight / 4  # a few hundredths of the contrast: the rule's bluntness


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("height", "width", "edge"), [(32, 40, 15), (33, 45, 20)])
def test_two_plateaus_move_by_the_closed_form(height: int, width: int, edge: int, turned: bool) -> None:
    images = torch.full((1, 2, height, width), 0.25, dtype=torch.float64)
    images[..., edge:] = 0.75
    kept = torch.ones_like(images)
    kept[:, 1, :, ::3] = 0  # the second channel lacks columns
    left, right = kept[0, :, 0, :edge].sum(1), kept[0, :, 0, edge:].sum(1)
    expected = images.clone()
    for channel in range(2):
        expected[:, channel, :, :edge] += 0.1 / left[channel]
        expected[:, channel, :, edge:] -= 0.1 / right[channel]
    if turned:
        images, kept, expected = (tensor.transpose(2, 3).contiguous() for tensor in (images, kept, expected))
    result = inpainted(images, kept, weight=0.1, steps=3000, tolerance=0.0)
    assert torch.allclose(result[kept > 0], expected[kept > 0], atol=1e-9)  # a lost column at the edge may go to either


@pytest.mark.parametrize("drop", [0.0, 0.5, 0.95])
def test_a_constant_image_comes_back(drop: float) -> None:
    images = torch.tensor([0.0, 0.3, 1.0]).view(1, 3, 1, 1).expand(2, 3, 33, 40).contiguous()
    assert torch.allclose(total_variation(images, drop=drop), images, atol=2e-6)


def test_what_is_dropped_has_no_say(photos: Tensor) -> None:
    kept = kept_values(photos, 0.5, 0)
    other = torch.where(kept > 0, photos, 1 - photos)
    few = {"weight": 0.03, "steps": 20, "tolerance": 0.0}
    assert torch.equal(inpainted(photos, kept, **few), inpainted(other, kept, **few))
    holes = inpainted(photos, kept, **few)[kept == 0] - photos[kept == 0]
    naive = (photos - photos.mean((2, 3), keepdim=True))[kept == 0]
    assert holes.square().mean() < naive.square().mean() / 4


def test_nothing_kept_is_black() -> None:
    images = torch.rand(1, 1, 32, 32)
    assert torch.equal(
        inpainted(images, torch.zeros_like(images), **(OPTIONS | {"steps": 5})), torch.zeros_like(images)
    )


@pytest.mark.parametrize("drop", [0.0, 0.3, 0.5, 0.9])
def test_the_mask_keeps_the_right_share(drop: float) -> None:
    images = torch.rand(3, 3, 101, 99, generator=torch.Generator().manual_seed(0))
    kept = kept_values(images, drop, 0)
    assert ((kept == 0) | (kept == 1)).all()
    deviation = math.sqrt(drop * (1 - drop) / images[0, 0].numel())
    assert ((kept.mean((2, 3)) - (1 - drop)).abs() <= 4 * deviation).all()
    together = (kept[:, 0] * kept[:, 1]).mean((1, 2))  # channels are drawn apart
    assert ((together - (1 - drop) ** 2).abs() <= 5 * deviation).all()
    shifted = (kept[..., 1:] * kept[..., :-1]).mean((2, 3))  # and so are neighbours
    assert ((shifted - (1 - drop) ** 2).abs() <= 5 * deviation).all()


def test_objective_is_what_the_docstring_says(generator: torch.Generator) -> None:
    z, x, m = (torch.rand(2, 2, 4, 5, generator=generator) for _ in range(3))
    for image in range(2):
        total = 0.0
        for c in range(2):
            for i in range(4):
                for j in range(5):
                    total += float(m[image, c, i, j] * (z[image, c, i, j] - x[image, c, i, j]) ** 2) / 2
                    down = float(z[image, c, i + 1, j] - z[image, c, i, j]) if i < 3 else 0.0
                    right = float(z[image, c, i, j + 1] - z[image, c, i, j]) if j < 4 else 0.0
                    total += 0.7 * math.hypot(down, right)
        assert objective(z, x, m, 0.7)[image].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 33, 37), (3, 32, 32), (3, 40, 71), (2, 65, 34)])
def test_an_image_gets_the_same_in_any_batch(channels: int, height: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, channels, height, width, generator=generator, dtype=dtype)
    images[1] = images[1] / 50 + 0.5  # is done long before the others
    images[3, :, 10:] = 0.2
    result = total_variation(images, tolerance=2e-4)
    assert result.shape == images.shape
    assert result.dtype == dtype
    assert result.min() >= 0
    assert result.max() <= 1
    for index in range(len(images)):
        assert torch.equal(total_variation(images[index : index + 1], tolerance=2e-4)[0], result[index])
    assert len(total_variation(images[:0])) == 0


def test_an_image_that_is_done_stays(photos: Tensor) -> None:
    images = torch.cat([photos[:1] / 50, photos[:1]])
    kept = kept_values(images, 0.5, 0)
    both = inpainted(images, kept, weight=0.03, steps=200, tolerance=3e-5)
    first = next(
        steps
        for steps in range(10, 200, 10)
        if torch.equal(inpainted(images[:1], kept[:1], weight=0.03, steps=steps, tolerance=3e-5), both[:1])
    )
    assert first < 100
    assert not torch.equal(inpainted(images[1:], kept[1:], weight=0.03, steps=first, tolerance=3e-5), both[1:])


def test_draws_are_a_function_of_the_seed(photos: Tensor) -> None:
    images = photos.float()
    module = TotalVariation(steps=5)
    assert torch.equal(module(images), total_variation(images, steps=5))
    assert not torch.equal(module(images), with_seed(module, 1)(images))
    fresh = with_seed(module, None)
    assert not torch.equal(fresh(images), fresh(images))
    assert torch.equal(total_variation(images, drop=0.0, seed=1), total_variation(images, drop=0.0, seed=2))


def test_any_layout_of_memory_gives_the_same(photos: Tensor) -> None:
    images = photos.float()
    assert torch.equal(total_variation(images.to(memory_format=torch.channels_last)), total_variation(images))


def test_the_module_has_the_functions_settings() -> None:
    module = TotalVariation(drop=0.25, weight=0.1, steps=7, tolerance=0.01, seed=3)
    assert module.settings() == {"drop": 0.25, "weight": 0.1, "steps": 7, "tolerance": 0.01, "seed": 3}
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(module(images), total_variation(images, **module.settings()))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"drop": 1.0}, "drop is 1.0"),
        ({"drop": -0.1}, "drop is -0.1"),
        ({"weight": 0.0}, "weight is 0.0"),
        ({"weight": math.inf}, "weight is inf"),
        ({"steps": 0}, "steps is 0"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        TotalVariation(**options)
    with pytest.raises(UsageError, match=problem):
        total_variation(torch.rand(1, 1, 32, 32), **options)


def test_a_module_refuses_small_images_and_unnamed_gradients() -> None:
    with pytest.raises(InputError, match="too small"):
        TotalVariation()(torch.rand(1, 3, 31, 40))
    with pytest.raises(UsageError, match="no gradient is named"):
        TotalVariation()(torch.rand(1, 3, 32, 32).requires_grad_())


needs_kernel = pytest.mark.skipif(binding.library() is None, reason="the total-variation kernel is not built")


def with_tensors(images: Tensor, kept: Tensor, **options: float) -> Tensor:
    """The iteration in tensors, whatever there is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binding, "takes", lambda _: False)
        return inpainted(images, kept, **options)


@needs_kernel
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("shape", [(3, 3, 48, 48), (2, 1, 33, 47), (1, 2, 9, 100), (1, 1, 2, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize(("weight", "steps"), [(0.03, 100), (0.3, 3), (0.03, 57)])
def test_the_kernel_does_what_the_tensors_do(
    dtype: torch.dtype, near: float, shape: tuple[int, ...], weight: float, steps: int, generator: torch.Generator
) -> None:
    images = torch.rand(shape, dtype=dtype, generator=generator)
    images[:1] = images[:1] / 16 + 0.4  # a flat image stops sooner than a rough one
    kept = kept_values(images, 0.5, 0) * (1 + torch.rand(shape, dtype=dtype, generator=generator))
    options = {"weight": weight, "steps": steps, "tolerance": 1e-4}
    assert binding.takes(images)
    torch.testing.assert_close(
        inpainted(images, kept, **options), with_tensors(images, kept, **options), rtol=0, atol=near
    )


@needs_kernel
def test_the_kernel_gives_the_same_on_any_number_of_threads(photos: Tensor) -> None:
    kept, before = kept_values(photos, 0.5, 0), torch.get_num_threads()
    made = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.append(inpainted(photos, kept, weight=0.03, steps=30, tolerance=0.0))
    finally:
        torch.set_num_threads(before)
    assert made[0].equal(made[1])
    alone = inpainted(photos[1:2], kept[1:2], weight=0.03, steps=30, tolerance=0.0)
    assert made[0][1:2].equal(alone)


def test_without_the_kernel_the_tensors_serve(photos: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = total_variation(photos)
    monkeypatch.setattr(binding, "library", lambda: None)
    assert not binding.takes(photos)
    torch.testing.assert_close(total_variation(photos), usual, rtol=0, atol=1e-9)


def test_the_kernel_leaves_other_tensors_alone() -> None:
    assert not binding.takes(torch.zeros(1, 1, 8, 8, dtype=torch.float16))
    assert not binding.takes(torch.zeros(1, 1, 8, 8, device="meta"))
