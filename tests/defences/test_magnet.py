"""MagNet's reformer has its true gradient, its detectors the source's scores and the rates that they are set to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quasinat import Defended
from quasinat.attacks import Linf, pgd
from quasinat.data import cifar10
from quasinat.defences import Detector
from quasinat.defences.magnet import (
    Magnet,
    MagnetDetectors,
    ProbabilityDivergence,
    ReconstructionError,
    cifar_detectors,
    jensen_shannon,
    mnist_detectors,
    reconstruction_error,
    reform,
)
from quasinat.defences.magnet_autoencoder import PLANS, MagnetAutoencoder, learn_magnet
from quasinat.errors import InputError, UsageError

every_plan = pytest.mark.parametrize("plan", list(PLANS))


def autoencoder(channels: int = 3, plan: str = "cifar") -> MagnetAutoencoder:
    """One with weights large enough that its output follows the image."""
    network = MagnetAutoencoder(channels, plan)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network.eval()


class Classifier(nn.Module):
    """Five logits of any images of 3 channels, with dropout, so that its training flag matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Dropout(0.5), nn.Conv2d(8, 5, 1))
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(2 * torch.randn(parameter.shape, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return 10 * self.layers(images).mean((2, 3))


class FirstPixel(Detector):
    """Scores that a test can set."""

    def scores(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, 0]


class SecondPixel(Detector):
    def scores(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, 1]


def random_images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@every_plan
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (33, 47)])
def test_the_reformer_is_the_autoencoder(plan: str, channels: int, size: tuple[int, int]) -> None:
    network = autoencoder(channels, plan)
    images = random_images(3, channels, *size)
    module = Magnet(network)
    with torch.no_grad():
        reformed = module(images)
        assert reformed.equal(network(images))
        assert reformed.equal(reform(images, network))
        assert reformed.shape == images.shape
        assert module(images[:0]).shape == (0, channels, *size)
        for i in range(3):
            torch.testing.assert_close(module(images[i : i + 1]), reformed[i : i + 1], rtol=0, atol=1e-6)
        fine = module(images.double())
    assert fine.dtype == torch.float64
    torch.testing.assert_close(fine.float(), reformed, rtol=0, atol=1e-6)
    assert module.settings() == {"plan": plan}
    with pytest.raises(InputError, match=f"takes images of {channels} channels, not {4 - channels}"):
        module(random_images(1, 4 - channels, *size))
    with pytest.raises(InputError, match="image 0 leaves"):
        module(2 * images)


@every_plan
def test_the_reformers_gradient_is_exact(plan: str) -> None:
    images = (0.1 + 0.8 * random_images(2, 1, 5, 6, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(Magnet(autoencoder(1, plan).double()), (images,), atol=1e-8, rtol=1e-6)


def test_an_attack_goes_through_and_leaves_no_gradient() -> None:
    defended = Defended(Magnet(autoencoder()), Classifier()).eval()
    images = random_images(4, 3, 8, 8)
    labels = defended(images).argmax(1)
    result = pgd(defended, images, labels, budget=Linf(0.2), steps=10)
    assert bool(result.success.any())
    assert all(parameter.grad is None for parameter in defended.parameters())


@pytest.mark.parametrize("p", [1, 2])
def test_the_error_is_the_mean_power_of_the_difference(p: int) -> None:
    network = autoencoder()
    images = random_images(5, 3, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        difference = (images - network(images)).numpy()
    expected = np.mean(np.abs(difference) ** p, axis=(1, 2, 3))
    with torch.no_grad():
        np.testing.assert_allclose(reconstruction_error(images, network, p=p).numpy(), expected, rtol=1e-12)
    detector = ReconstructionError(network, p=p)
    np.testing.assert_allclose(detector.all_scores(images, batch_size=2).numpy(), expected, rtol=1e-6)
    assert detector.all_scores(images[:0]).shape == (0,)


@pytest.mark.parametrize("temperature", [1.0, 10.0, 40.0])
def test_the_divergence_is_scipys_squared_distance(temperature: float) -> None:
    from scipy.spatial.distance import jensenshannon
    from scipy.special import softmax

    generator = torch.Generator().manual_seed(2)
    first, second = (8 * torch.randn(20, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    p, q = (softmax(logits.numpy() / temperature, axis=1) for logits in (first, second))
    expected = jensenshannon(p, q, axis=1) ** 2  # its default base is e, as of the source's entropy
    np.testing.assert_allclose(jensen_shannon(first, second, temperature=temperature).numpy(), expected, rtol=1e-9)


def test_the_divergence_of_extreme_logits() -> None:
    sure = torch.tensor([[2000.0, -2000.0], [2000.0, -2000.0], [0.0, 0.0]])
    other = torch.tensor([[-2000.0, 2000.0], [2000.0, -2000.0], [1e-3, 0.0]])
    values = jensen_shannon(sure, other)
    half, change = 0.5, 1e-3 / 4  # of two near distributions: sum of (p - q)^2 / m over 8
    expected = [np.log(2), 0.0, 2 * change**2 / half / 8]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-3)


def test_the_divergence_detector_scores_before_and_after_the_reformer() -> None:
    from scipy.spatial.distance import jensenshannon
    from scipy.special import softmax

    network, classifier = autoencoder(), Classifier().train()
    images = random_images(6, 3, 9, 8)
    detector = ProbabilityDivergence(network, classifier, temperature=10.0)
    scores = detector.all_scores(images, batch_size=4)
    assert classifier.layers[2].training
    classifier.eval()
    with torch.no_grad():
        p, q = (softmax(classifier(x).double().numpy() / 10, axis=1) for x in (images, network(images)))
    np.testing.assert_allclose(scores.numpy(), jensenshannon(p, q, axis=1) ** 2, rtol=1e-4, atol=1e-9)
    assert scores.min() > 0
    for i in range(6):
        torch.testing.assert_close(detector.all_scores(images[i : i + 1])[0], scores[i], rtol=1e-3, atol=1e-7)
    with pytest.raises(InputError, match="logits that are not finite"):
        ProbabilityDivergence(network, Broken())(images)


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.new_full((len(images), 3), torch.nan)


def test_a_score_can_be_differentiated() -> None:
    """As an adaptive attack does, whose loss holds the detectors' scores."""
    network, classifier = autoencoder().double(), Classifier().double()
    for detector in (ReconstructionError(network, p=2), ProbabilityDivergence(network, classifier)):
        images = random_images(1, 3, 6, 5, dtype=torch.float64).requires_grad_()
        (gradient,) = torch.autograd.grad(detector.scores(images).sum(), images)
        direction = gradient / gradient.norm()
        with torch.no_grad():
            ends = [detector.scores(images + sign * 1e-2 * direction) for sign in (1, -1)]
        slope = float(ends[0] - ends[1]) / 2e-2
        assert slope == pytest.approx(float(gradient.norm()), rel=0.02)


def test_any_flag_counts() -> None:
    """Scores at, next to and far from the thresholds; thresholds of zero and of infinity."""
    joint = MagnetDetectors(FirstPixel(), SecondPixel())
    values = [0.0, 0.1, float(np.nextafter(np.float32(0.3), np.float32(1))), 0.3, 0.7, 1.0, 1e-30]
    images = torch.zeros(len(values) ** 2, 1, 1, 2)
    images[:, 0, 0] = torch.cartesian_prod(torch.tensor(values), torch.tensor(values))
    assert not joint(images).any()
    for first in (0.0, 0.1, 0.3, 1.0, torch.inf):
        for second in (0.0, 0.3, 0.7):
            joint.parts[0].threshold.fill_(first)
            joint.parts[1].threshold.fill_(second)
            expected = joint.parts[0](images) | joint.parts[1](images)
            assert joint(images).equal(expected)
            assert (joint.all_scores(images) > 1).equal(expected)
    assert joint(images[:0]).shape == (0,)


Make = Callable[[MagnetAutoencoder, nn.Module], Detector]
every_detector = pytest.mark.parametrize(
    "make",
    [
        lambda network, _: ReconstructionError(network, p=1),
        lambda network, _: ReconstructionError(network, p=2),
        lambda network, classifier: ProbabilityDivergence(network, classifier, temperature=10.0),
        lambda network, classifier: ProbabilityDivergence(network, classifier, temperature=40.0),
    ],
    ids=["L1", "L2", "T=10", "T=40"],
)


def check_rate(detector: Detector, calibration: Tensor, others: Tensor, rate: float) -> None:
    """Exact on the calibration images; on others within the bounds of chance.

    With continuous scores, that of another image is above the (a + 1)-th largest of n with a probability that is
    Beta(a + 1, n - a), so that the count among m others is beta-binomial.
    """
    from scipy.stats import betabinom

    count, allowed = len(calibration), int(rate * len(calibration))
    assert detector.calibrate(calibration, rate) == pytest.approx(allowed / count)
    assert int(detector(calibration).sum()) == allowed <= rate * count
    low, high = betabinom(len(others), allowed + 1, count - allowed).interval(1 - 1e-4)
    assert low <= int(detector(others).sum()) <= high


@every_detector
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_calibrated_detector_keeps_its_rate(make: Make, dtype: torch.dtype) -> None:
    detector = make(autoencoder().to(dtype), Classifier().to(dtype))
    images = random_images(3000, 3, 6, 5, dtype=dtype)
    check_rate(detector, images[:1000], images[1000:], 0.05)


def test_several_are_calibrated_at_once() -> None:
    joint = cifar_detectors(autoencoder(), Classifier())
    images = random_images(2000, 3, 6, 5)
    flagged = joint.calibrate(images, 0.01)
    each = torch.stack([part(images) for part in joint.parts])
    assert each.sum(1).tolist() == [20, 20, 20]
    assert joint(images).equal(each.any(0))
    assert flagged == pytest.approx(float(each.any(0).float().mean()))
    assert 0.01 <= flagged <= 0.03
    joint.calibrate(images, [0.001, 0.0, 0.5])
    assert [int(part(images).sum()) for part in joint.parts] == [2, 0, 1000]
    kept = cifar_detectors(autoencoder(), Classifier())
    kept.load_state_dict(joint.state_dict())
    assert kept(images).equal(joint(images))


def test_the_sources_sets_of_detectors() -> None:
    network, classifier = autoencoder(), Classifier()
    error, warm, hot = cifar_detectors(network, classifier).parts
    assert isinstance(error, ReconstructionError)
    assert error.p == 1
    assert (warm.temperature, hot.temperature) == (10.0, 40.0)
    first, second = autoencoder(1, "mnist-1"), autoencoder(1, "mnist-2")
    parts = list(mnist_detectors(first, second).parts)
    assert [(part.autoencoder, part.p) for part in parts] == [(first, 2), (second, 1)]


def test_real_images_are_flagged_at_the_rate_and_noisy_ones_more_often(real_data: Path) -> None:
    """All parts apart: 400 images to learn from, 2,000 to calibrate on, 3,000 others."""
    images, _ = cifar10(real_data, "test")
    learned, calibration, others = images[:400], images[400:2400], images[2400:5400]
    network = learn_magnet(learned[:, :, 8:24, 8:24], epochs=20, batch_size=8, learning_rate=0.1)
    joint = cifar_detectors(network, Classifier())
    for part in joint.parts:
        check_rate(part, calibration, others, 0.02)
    clean = others[:500]
    noisy = (clean + 0.15 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert joint.parts[0](noisy).float().mean() > 0.9
    assert joint.parts[0](clean).float().mean() < 0.1


def test_what_makes_no_sense_is_refused() -> None:
    network, classifier = autoencoder(), Classifier()
    with pytest.raises(UsageError, match="p is 0"):
        ReconstructionError(network, p=0)
    with pytest.raises(UsageError, match=r"temperature is 0\.0"):
        ProbabilityDivergence(network, classifier, temperature=0.0)
    with pytest.raises(UsageError, match="no detector"):
        MagnetDetectors()
    joint = cifar_detectors(network, classifier)
    images = random_images(4, 3, 6, 5)
    with pytest.raises(UsageError, match="2 rates are not one for each of 3"):
        joint.calibrate(images, [0.1, 0.1])
    with pytest.raises(UsageError, match=r"rate of 1\.0 makes no sense"):
        joint.calibrate(images, 1.0)
    with pytest.raises(InputError, match="no images to calibrate"):
        joint.calibrate(images[:0], 0.1)
    with pytest.raises(InputError, match="takes images of 3 channels, not 1"):
        joint(random_images(2, 1, 6, 5))
