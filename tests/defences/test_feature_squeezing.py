"""Feature squeezing against its parts; the joint detector's scores against numpy, its rate against counting."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quasinat.data import photographs
from quasinat.defences.bit_depth import reduce_bit_depth
from quasinat.defences.feature_squeezing import (
    FALSE_POSITIVE_RATE,
    FeatureSqueezing,
    JointDetector,
    default_squeezers,
    feature_squeezing,
)
from quasinat.defences.filters import median_filter
from quasinat.defences.non_local_means import non_local_means
from quasinat.errors import UsageError


@pytest.fixture(scope="module")
def images() -> Tensor:
    return photographs(colour=True, train_per_class=20, test_per_class=1).train_images


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """Any network with dropout, so that its flag matters."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=3), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(600, 4)
        )
        nn.init.normal_(network[4].weight, std=0.3)
    return network


PARTS: dict[Any, Any] = {
    "bits": lambda x: reduce_bit_depth(x, bits=4),
    "median": lambda x: median_filter(x, size=3),
    "means": lambda x: non_local_means(x, search=7, patch=5, strength=0.03),
}
OPTIONS: dict[str, Any] = {"bits": 4, "size": 3, "search": 7, "patch": 5, "strength": 0.03}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_squeezer_and_all_in_a_row(images: Tensor, channels: int, dtype: torch.dtype) -> None:
    some = images[:3, :channels, :, :].to(dtype)
    some = torch.cat([some, some[..., :5]], dim=3)  # 32 x 37
    for use, part in PARTS.items():
        assert feature_squeezing(some, use=use, **OPTIONS).equal(part(some))
    row = feature_squeezing(some, **OPTIONS)
    assert row.equal(PARTS["means"](PARTS["median"](PARTS["bits"](some))))
    assert row.dtype == dtype
    assert row.equal(torch.cat([feature_squeezing(image[None], **OPTIONS) for image in some]))
    assert feature_squeezing(some[:0]).shape == (0, *some.shape[1:])


def test_the_module_is_the_function(images: Tensor) -> None:
    module = FeatureSqueezing(use="row", **OPTIONS)
    assert module.settings() == {"use": "row", **OPTIONS}
    assert module(images[:3]).equal(feature_squeezing(images[:3], **OPTIONS))
    assert FeatureSqueezing(use="median")(images[:3]).equal(median_filter(images[:3], size=2))
    with pytest.raises(UsageError, match="no gradient is named for FeatureSqueezing"):
        module(images[:3].clone().requires_grad_())


def test_the_defaults_are_the_sources() -> None:
    bits, median, means = (squeezer.settings() for squeezer in default_squeezers())
    assert bits == {"bits": 5}
    assert median == {"size": 2}
    assert (means["search"], means["patch"], means["strength"]) == (11, 3, 4 / 255)
    assert FALSE_POSITIVE_RATE == 0.05


@pytest.mark.parametrize(
    ("options", "message"), [({"bits": 0}, "bits is 0"), ({"size": 1}, "size"), ({"patch": 4}, "patch is 4")]
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FeatureSqueezing(**options)


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_scores_are_those_of_the_formula(images: Tensor, classifier: nn.Module) -> None:
    some = images[:12]
    classifier.eval()
    with torch.no_grad():
        plain = probabilities(classifier(some).double().numpy())
        squeezed = [
            reduce_bit_depth(some, bits=5),
            median_filter(some, size=2),
            non_local_means(some, search=11, patch=3, strength=4 / 255),
        ]
        changes = np.stack(
            [np.abs(plain - probabilities(classifier(view).double().numpy())).sum(1) for view in squeezed]
        )
    scores = JointDetector(classifier).all_scores(some)
    assert np.allclose(scores.numpy(), changes.max(0), rtol=0, atol=1e-5)
    for number, squeezer in enumerate(default_squeezers()):
        alone = JointDetector(classifier, [squeezer]).all_scores(some)
        assert np.allclose(alone.numpy(), changes[number], rtol=0, atol=1e-5)
    assert changes.max(0).sum() > changes[0].sum() + 0.01


def test_scores_do_not_depend_on_the_batch_and_flags_come_back(images: Tensor, classifier: nn.Module) -> None:
    classifier.train()
    classifier[0].eval()  # type: ignore[index]
    before = [module.training for module in classifier.modules()]
    detector = JointDetector(classifier)
    together = detector.all_scores(images[:6])
    assert torch.allclose(together, detector.all_scores(images[:6], batch_size=1), rtol=0, atol=1e-6)
    assert [module.training for module in classifier.modules()] == before
    assert detector.all_scores(images[:0]).shape == (0,)
    assert not detector(images[:6]).any()  # not calibrated


class Even(nn.Module):
    """Two classes; the probability of the first is the image's mean."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([mean.log(), (1 - mean).log()], dim=1)


class Darker(nn.Module):
    """Takes a fifth of the first pixel from all pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return images - images[:, :, :1, :1] / 5


def synthetic(count: int, seed: int) -> Tensor:
    """Images whose score is uniform in [0, 0.4]."""
    amount = torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    images = torch.full((count, 1, 4, 4), 0.5, dtype=torch.float64)
    images[:, :, :1, :1] = amount
    return images


def test_the_rate_holds_on_the_calibration_set_and_beyond() -> None:
    detector = JointDetector(Even(), [nn.Identity(), Darker()])
    clean = synthetic(1000, seed=0)
    amount = clean[:, 0, 0, 0]
    assert torch.allclose(detector.all_scores(clean), 2 * amount / 5, rtol=0, atol=1e-12)
    assert detector.calibrate(clean, FALSE_POSITIVE_RATE) == pytest.approx(0.05)
    assert int(detector(clean).sum()) == 50  # exactly 5 %
    assert detector(clean).equal(amount > amount.sort().values[949])
    others = synthetic(4000, seed=1)
    rate = float(detector(others).double().mean())
    # the calibration's own deviation and that of the count, four of them
    deviation = math.sqrt(0.05 * 0.95 * (1 / 1000 + 1 / 4000))
    assert abs(rate - 0.05) < 4 * deviation


def test_what_the_squeezer_changes_is_flagged() -> None:
    detector = JointDetector(Even(), [Darker()])
    detector.calibrate(synthetic(200, seed=0) * 0.5, FALSE_POSITIVE_RATE)
    suspicious = synthetic(50, seed=1)
    suspicious[:, :, :1, :1] = 1.0
    assert detector(suspicious).all()


def test_no_squeezers(classifier: nn.Module) -> None:
    with pytest.raises(UsageError, match="a joint detector of no squeezers"):
        JointDetector(classifier, [])
