"""Local intrinsic dimension against a brute-force estimate and against spaces whose dimension is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from quasinat.defences.local_dimension import LocalDimensionDetector, local_dimension, noise_like
from quasinat.errors import InputError, UsageError
from quasinat.networks import vgg


def brute_force(point: list[float], reference: list[list[float]], k: int) -> float:
    """Equation 4, number by number."""
    distances = sorted(math.dist(point, other) for other in reference if other != point)
    return -1 / (sum(math.log(r / distances[k - 1]) for r in distances[:k]) / k)


def test_the_estimate_is_that_of_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(40, 7, generator=generator, dtype=torch.float64)
    points = torch.cat([torch.randn(6, 7, generator=generator, dtype=torch.float64), reference[:3]])
    found = local_dimension(points, reference, 12)
    for point, value in zip(points.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(brute_force(point, reference.tolist(), 12), rel=1e-10)


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_the_dimension_of_a_uniform_ball_is_found(dimension: int) -> None:
    """At the middle of a ball of dimension d the estimate has mean d k / (k - 2) and deviation near d / sqrt(k)."""
    generator = torch.Generator().manual_seed(dimension)
    trials, k = 200, 50
    directions = torch.randn(trials, 4000, dimension, generator=generator, dtype=torch.float64)
    directions /= torch.linalg.vector_norm(directions, dim=2, keepdim=True)
    radii = torch.rand(trials, 4000, 1, generator=generator, dtype=torch.float64) ** (1 / dimension)
    # Ten more coordinates in which nothing happens do not count.
    balls = torch.cat([radii * directions, torch.zeros(trials, 4000, 10, dtype=torch.float64)], 2)
    middle = torch.zeros(1, dimension + 10, dtype=torch.float64)
    mean = float(torch.cat([local_dimension(middle, ball, k) for ball in balls]).mean())
    expected = dimension * k / (k - 2)
    assert abs(mean - expected) < 5 * dimension / math.sqrt(k * trials)


def test_neighbours_that_are_all_alike_give_no_infinity() -> None:
    corners = torch.eye(30)
    found = local_dimension(torch.zeros(2, 30), corners, 20)
    assert found.isfinite().all()
    assert (found > 1e6).all()
    assert local_dimension(torch.zeros(1, 30), torch.zeros(30, 30), 20).isfinite().all()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(120, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def detector(images: Tensor) -> LocalDimensionDetector:
    return LocalDimensionDetector(vgg("vgg-small", classes=4).eval(), images[:40], neighbours=10)


def test_there_is_a_dimension_for_every_layer(detector: LocalDimensionDetector, images: Tensor) -> None:
    network = detector.network
    found = detector.dimensions(images[50:53])
    assert found.shape == (3, 8)  # five ReLUs, three poolings
    own, others = network.normalise(images[50:53]), network.normalise(images[:40])
    own, others = network.features[:3](own), network.features[:3](others)
    expected = [brute_force(a.flatten().tolist(), [b.flatten().tolist() for b in others], 10) for a in own]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected), rtol=1e-3, atol=0)


def test_an_image_has_its_score_alone_and_in_its_batch(detector: LocalDimensionDetector, images: Tensor) -> None:
    detector.weight.copy_(torch.arange(8.0))
    together = detector.all_scores(images[50:60])
    for i in range(10):
        torch.testing.assert_close(detector.all_scores(images[50 + i : 51 + i])[0], together[i], rtol=1e-4, atol=0)


def test_the_fit_tells_apart_what_differs_and_the_score_is_the_regressions(
    detector: LocalDimensionDetector, images: Tensor
) -> None:
    flat = 0.5 + 0.02 * (images[40:80] - 0.5)  # far from the reference: their neighbours are nearly equally far
    right = detector.fit(images[80:120], noise_like(images[80:120], images[80:120], seed=1), flat)
    assert right > 0.9
    assert detector.all_scores(flat).median() > 0 > detector.all_scores(images[80:120]).median()
    value = detector.dimensions(flat[:1])[0]
    assert float(detector.all_scores(flat[:1])) == pytest.approx(
        float(value @ detector.weight + detector.bias), rel=1e-5
    )
    rate = detector.calibrate(images[80:120], 0.1)
    assert rate <= 0.1


def test_the_noise_is_as_large_as_the_attack(images: Tensor) -> None:
    clean = 0.25 + images[:8] / 2
    attacked = clean + 0.05
    noisy = noise_like(clean, attacked)
    sizes = torch.linalg.vector_norm((noisy - clean).flatten(1), dim=1)
    torch.testing.assert_close(sizes, torch.linalg.vector_norm((attacked - clean).flatten(1), dim=1))
    assert not noisy.equal(noise_like(clean, attacked, seed=1))


def test_what_cannot_be_is_refused(images: Tensor) -> None:
    network = vgg("vgg-small", classes=4).eval()
    with pytest.raises(UsageError, match="5 reference images are too few for 20"):
        LocalDimensionDetector(network, images[:5])
    with pytest.raises(UsageError, match="the layers of Linear are not known"):
        LocalDimensionDetector(nn.Linear(2, 2), images)
    with pytest.raises(InputError, match="set to fit the detector on is empty"):
        LocalDimensionDetector(network, images).fit(images[:0], images[:0], images[:0])
    with pytest.raises(UsageError, match="3 reference points are too few"):
        local_dimension(torch.zeros(1, 2), torch.zeros(3, 2), 3)
