"""The crop ensemble: its views by trying every place, its average and its gradient written out."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.attacks import Linf, pgd
from quasinat.defences.bit_depth import BitDepth
from quasinat.defences.crops import CropEnsemble, random_crops
from quasinat.defences.filters import MeanFilter
from quasinat.defences.transformation import with_seed
from quasinat.defended import Defended, StraightThrough
from quasinat.errors import InputError, UsageError
from quasinat.sparse_coding import Identity, Unrolled


class Classifier(nn.Module):
    """Two layers with dropout, so that its training flag matters."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(shape), 12), nn.Tanh(), nn.Dropout(0.5), nn.Linear(12, 4)
        )
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images - 0.5)


def every_crop(image: Tensor, height: int, width: int) -> Tensor:
    """The crops at all places, row after row, enlarged by Pillow."""
    channels, rows, columns = image.shape
    crops = [
        [
            np.asarray(Image.fromarray(plane.numpy()).resize((columns, rows), Image.Resampling.BILINEAR))
            for plane in image[:, top : top + height, left : left + width].contiguous()
        ]
        for top in range(rows - height + 1)
        for left in range(columns - width + 1)
    ]
    return torch.from_numpy(np.array(crops)).reshape(-1, channels, rows, columns)


@pytest.mark.parametrize(
    ("shape", "fraction", "size"),
    [
        ((3, 32, 32), 90 / 224, (12, 12)),
        ((1, 35, 40), 90 / 224, (14, 16)),
        ((2, 40, 33), 0.9, (36, 29)),
        ((3, 32, 33), 1.0, (32, 33)),
    ],
)
def test_each_view_is_the_enlarged_crop_of_one_place(
    shape: tuple[int, int, int], fraction: float, size: tuple[int, int], generator: torch.Generator
) -> None:
    images = torch.rand(2, *shape, generator=generator)
    views = torch.stack(list(CropEnsemble(crops=8, fraction=fraction).views(images)))
    assert views.shape == (8, 2, *shape)
    for number, image in enumerate(images):
        candidates = every_crop(image, *size)
        distances = (views[:, number, None] - candidates[None]).flatten(2).abs().amax(2)
        assert ((distances < 1e-5).sum(1) == 1).all()
        assert len(distances.argmin(1).unique()) > 1 or fraction == 1
    if fraction == 1:
        assert views.equal(images.expand_as(views))


def test_the_crop_is_the_sources_at_its_size() -> None:
    image = (torch.arange(224.0) / 224).expand(1, 1, 224, 224)
    for view in random_crops(image, crops=3):  # of 90 columns, the first and the last are 89 / 224 apart
        span = (view[..., -1] - view[..., 0]).unique()
        torch.testing.assert_close(span, torch.full_like(span, 89 / 224))
        assert view.shape == image.shape
    assert len(list(random_crops(image))) == CropEnsemble().crops == 30


def test_all_places_are_equally_likely() -> None:
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(34.0), indexing="ij")
    ramps = torch.stack([rows, columns]) / 33
    shifts = torch.linspace(0, 0.5, 40)[:, None, None, None]
    images = torch.cat([0.5 * ramps.expand(40, -1, -1, -1) + shifts, shifts.expand(-1, 1, 32, 34)], 1)
    counts = torch.zeros(4, 5)
    for view in random_crops(images, crops=60, fraction=29 / 32):  # 29 of 32 rows, 30 of 34 columns
        # The mean of an enlarged ramp is its value in the middle: the place, from the two of them.
        tops, lefts = ((view[:, :2].mean((2, 3)) - view[:, 2:].mean((2, 3))) * 66 - torch.tensor([14, 14.5])).T
        for top, left in zip(tops.tolist(), lefts.tolist(), strict=True):
            assert abs(top - round(top)) < 1e-3
            counts[round(top), round(left)] += 1
    assert counts.sum() == 2400
    assert scipy.stats.chisquare(counts.flatten().tolist()).pvalue > 1e-3


@pytest.mark.parametrize("then", [None, MeanFilter(), BitDepth(bits=2)])
def test_the_defended_probabilities_are_the_mean_over_the_views(
    then: nn.Module | None, generator: torch.Generator
) -> None:
    images = torch.rand(3, 3, 32, 32, generator=generator)
    ensemble, classifier = CropEnsemble(then, crops=5), Classifier((3, 32, 32)).eval()
    with torch.no_grad():
        logits = Defended(ensemble, classifier)(images)
        crops = list(random_crops(images, crops=5))
        shown = crops if then is None else [then(crop) for crop in crops]
        probabilities = torch.stack([classifier(view).softmax(1) for view in shown]).mean(0)
    torch.testing.assert_close(logits.softmax(1), probabilities)
    torch.testing.assert_close(logits.exp(), probabilities)
    assert probabilities.std(1).min() > 1e-3
    assert ensemble(images).equal(shown[0])


def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(images), labels)


def test_the_gradient_is_the_finite_difference_and_needs_no_name(generator: torch.Generator) -> None:
    images = (torch.rand(3, 1, 32, 35, generator=generator) * 0.9 + 0.05).double()
    labels = torch.tensor([0, 3, 1])
    plain = Defended(CropEnsemble(crops=4), Classifier((1, 32, 35), torch.float64)).eval()
    named = plain.with_adjoint(Identity()).eval()
    gradients = []
    for model in (plain, named):
        watched = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss(model, watched, labels), watched)[0])
    assert gradients[0].equal(gradients[1])
    with torch.no_grad():
        assert plain(images).equal(named(images))
        for _ in range(5):
            direction = torch.rand(images.shape, generator=generator, dtype=torch.float64) - 0.5
            step = 1e-9  # less than single precision resolves, which the draws are made from: they stay
            ahead, behind = (loss(plain, images + sign * step * direction, labels) for sign in (1, -1))
            slope = ((ahead - behind) / (2 * step)).item()
            assert slope == pytest.approx((gradients[0] * direction).sum().item(), rel=1e-3, abs=1e-6)


def test_white_images_have_the_whole_gradient() -> None:
    images = torch.ones(2, 1, 32, 32, requires_grad=True)
    for view in CropEnsemble(crops=3).views(images):
        assert view.amax() <= 1
        (gradient,) = torch.autograd.grad(view.sum(), images)
        torch.testing.assert_close(gradient.sum(), torch.tensor(2048.0))


def test_the_named_gradient_passes_by_what_follows_the_crops_only(generator: torch.Generator) -> None:
    images = torch.rand(3, 3, 32, 32, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1])
    plain = Defended(CropEnsemble(BitDepth(bits=2), crops=4), Classifier((3, 32, 32), torch.float64)).eval()
    watched = images.clone().requires_grad_()
    with pytest.raises(UsageError, match="no gradient is named for BitDepth"):
        plain(watched)
    named = plain.with_adjoint(Identity()).eval()
    (gradient,) = torch.autograd.grad(loss(named, watched, labels), watched)
    crops = list(random_crops(watched, crops=4))
    shown = [BitDepth(bits=2)(crop.detach()).requires_grad_() for crop in crops]
    mean = torch.stack([plain.classifier(view).softmax(1) for view in shown]).mean(0)
    behind = torch.autograd.grad(F.nll_loss(mean.log(), labels), shown)
    (expected,) = torch.autograd.grad(crops, watched, behind)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)
    assert gradient.abs().max() > 0
    with torch.no_grad():
        assert named(images).equal(plain(images))


def test_a_differentiable_defence_after_the_crops_keeps_its_own_gradient(generator: torch.Generator) -> None:
    images = torch.rand(2, 1, 32, 32, generator=generator, dtype=torch.float64)
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    watched = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((CropEnsemble(MeanFilter())(watched) * weights).sum(), watched)
    (expected,) = torch.autograd.grad((MeanFilter()(next(random_crops(watched))) * weights).sum(), watched)
    assert gradient.equal(expected)
    (passed,) = torch.autograd.grad(
        (CropEnsemble(MeanFilter()).with_adjoint(Identity())(watched) * weights).sum(), watched
    )
    (without,) = torch.autograd.grad((next(random_crops(watched)) * weights).sum(), watched)
    assert passed.equal(without)
    assert not passed.equal(gradient)


@pytest.mark.parametrize("mode", [True, False])
def test_naming_a_gradient_leaves_the_flags_and_the_ensemble(mode: bool, generator: torch.Generator) -> None:
    then = nn.Sequential(BitDepth(), nn.Dropout(0.5)).train(not mode)
    ensemble = CropEnsemble(then, crops=2, fraction=0.7, seed=3)
    ensemble.training = mode
    named = ensemble.with_adjoint(Identity())
    assert (named.training, ensemble.training) == (mode, mode)
    assert [part.training for part in then.modules()] == [not mode] * 3
    assert isinstance(named.then, StraightThrough)
    assert named.then.transform is ensemble.then is then
    assert (named.crops, named.fraction, named.seed) == (2, 0.7, 3)
    assert CropEnsemble().with_adjoint(Identity()).then is None
    with pytest.raises(UsageError, match="CropEnsemble has no gradient of the kind Unrolled; name Identity"):
        ensemble.with_adjoint(Unrolled())


def test_an_attack_leaves_the_flags_and_succeeds(generator: torch.Generator) -> None:
    images = torch.rand(3, 1, 32, 32, generator=generator) * 0.8 + 0.1
    model = Defended(CropEnsemble(BitDepth(), crops=3), Classifier((1, 32, 32))).eval().with_adjoint(Identity())
    model.classifier.train()
    model.eval()
    with torch.no_grad():
        labels = model(images).argmax(1)
    model.classifier.train()
    flags = [part.training for part in model.modules()]
    result = pgd(model, images, labels, budget=Linf(0.2), steps=10)
    assert [part.training for part in model.modules()] == flags
    assert result.success.all()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("then", [None, MeanFilter()])
def test_draws_are_the_images_own_and_the_seeds(
    then: nn.Module | None, dtype: torch.dtype, generator: torch.Generator
) -> None:
    images = torch.rand(7, 3, 33, 40, generator=generator, dtype=dtype)
    ensemble = CropEnsemble(then, crops=3)

    def views(module: CropEnsemble, of: Tensor) -> Tensor:
        return torch.stack(list(module.views(of)))

    seen = views(ensemble, images)
    assert seen.dtype == dtype
    assert seen.equal(views(ensemble, images))
    for number in (0, 3, 6):
        assert seen[:, number].equal(views(ensemble, images[number : number + 1])[:, 0])
    assert not seen.equal(views(with_seed(ensemble, 1), images))
    fresh = with_seed(ensemble, None)
    torch.manual_seed(3)
    first, second = views(fresh, images), views(fresh, images)
    assert not first.equal(second)
    torch.manual_seed(3)
    assert views(fresh, images).equal(first)
    assert views(ensemble, images[:0]).shape == (3, 0, 3, 33, 40)
    assert ensemble(images[:0]).shape == (0, 3, 33, 40)


def test_what_is_refused() -> None:
    for crops in (0, -3):
        with pytest.raises(UsageError, match=f"crops is {crops}"):
            CropEnsemble(crops=crops)
    for fraction in (0.0, -0.5, 1.01, float("nan")):
        with pytest.raises(UsageError, match="fraction is"):
            CropEnsemble(fraction=fraction)
        with pytest.raises(UsageError, match="fraction is"):
            random_crops(torch.zeros(1, 1, 32, 32), fraction=fraction)
    for images, problem in (
        (torch.zeros(1, 1, 31, 40), "31 x 40 pixels are too small for CropEnsemble"),
        (torch.full((1, 1, 32, 32), 1.5), "leaves"),
        (torch.full((1, 1, 32, 32), torch.nan), "NaN"),
    ):
        with pytest.raises(InputError, match=problem):
            CropEnsemble().views(images)
        with pytest.raises(InputError, match=problem):
            Defended(CropEnsemble(), nn.Flatten())(images)
