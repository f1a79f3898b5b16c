"""Randomised smoothing against closed forms: the binomial's own tails, and linear models whose boundary is known."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from quasinat.errors import InputError, UsageError
from quasinat.evaluation import (
    Accuracy,
    Certificates,
    average_radius,
    certificate,
    certified_accuracy,
    certify,
    largest_radius,
    lower_bound,
    noise_counts,
    predict,
    wilson_interval,
)

SHAPE = (1, 4, 4)
SIGMA = 0.08  # grey is more than six deviations from black and white: nothing is clipped


class Plane(nn.Module):
    """Two classes on the sides of a plane; `margin` is the distance of mid-grey to it, on the side of class 0."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        normal = torch.randn(math.prod(SHAPE), generator=torch.Generator().manual_seed(4))
        self.register_buffer("normal", 3 * normal)
        self.offset = margin * float(self.normal.norm())

    def forward(self, images: Tensor) -> Tensor:
        f = (images - 0.5).flatten(1) @ self.normal + self.offset
        return torch.stack([f, -f], 1)


class Five(nn.Module):
    """A curved model of five classes, with dropout and batch normalisation: its training flag matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(SHAPE), 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(), nn.Linear(12, 5)
        )
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Seen(nn.Module):
    """Keeps what it is shown; answers class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(images.clone())
        return torch.tensor([1.0, 0.0]).expand(len(images), 2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(5, *SHAPE, generator=generator)


def grey(count: int = 1) -> Tensor:
    return torch.full((count, *SHAPE), 0.5)


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def tail(n: int, k: int, p: float) -> float:
    """P(Binomial(n, p) >= k), term by term."""
    return math.fsum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


# The bound


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.3), (10, 0.05), (1000, 0.001), (100_000, 0.001)])
def test_the_bound_where_all_succeed_is_a_root_of_alpha(n: int, alpha: float) -> None:
    assert lower_bound(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-10)
    assert lower_bound(0, n, alpha) == 0.0


@pytest.mark.parametrize(
    ("k", "n", "alpha"), [(1, 1, 0.5), (1, 9, 0.01), (5, 9, 0.05), (61, 100, 0.001), (3, 200, 0.2)]
)
def test_at_the_bound_so_many_successes_have_the_probability_alpha(k: int, n: int, alpha: float) -> None:
    assert tail(n, k, lower_bound(k, n, alpha)) == pytest.approx(alpha, rel=1e-8)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.51, 0.9, 0.999])
@pytest.mark.parametrize("alpha", [0.2, 0.01])
def test_the_bound_exceeds_the_truth_with_a_probability_of_at_most_alpha(p: float, alpha: float) -> None:
    n = 80
    wrong = math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if lower_bound(k, n, alpha) > p)
    assert wrong <= alpha


def test_no_radius_exceeds_the_one_of_unanimous_copies() -> None:
    counts = torch.tensor([[0, 200]])
    assert largest_radius(0.3, 200, 0.01) == certificate(counts, counts, 0.3, 0.01).radii.item()
    assert phi(largest_radius(0.3, 200, 0.01) / 0.3) == pytest.approx(0.01 ** (1 / 200), rel=1e-10)
    assert largest_radius(0.3, 6, 0.01) == 0.0  # 0.01^(1/6) is below a half


# Certificates


@pytest.mark.parametrize("distance", [0.02, 0.08, 0.15])
def test_on_a_plane_the_radius_approaches_the_distance_from_below(distance: float) -> None:
    samples, alpha = 20_000, 0.001
    share = phi(distance / SIGMA)
    counts = noise_counts(Plane(distance), grey(), sigma=SIGMA, samples=samples, classes=2, batch_size=5000)
    assert counts.sum() == samples
    spread = math.sqrt(samples * share * (1 - share))
    assert abs(counts[0, 0].item() - samples * share) < 4 * spread
    proven = certify(Plane(distance), grey(), sigma=SIGMA, classes=2, samples=samples, alpha=alpha, batch_size=5000)
    assert (proven.classes.tolist(), proven.abstained.tolist()) == ([0], [False])
    assert 0.85 * distance < proven.radii.item() < distance
    fewer = certify(Plane(distance), grey(), sigma=SIGMA, classes=2, samples=1000, alpha=alpha, batch_size=1000)
    assert fewer.radii.item() < proven.radii.item()


def test_radii_on_a_plane_are_wrong_as_rarely_as_promised() -> None:
    """Each of many images draws noise of its own; the radius may pass the distance in a share alpha of them."""
    repeats, alpha, distance = 1500, 0.05, 0.05
    proven = certify(
        Plane(distance),
        grey(repeats),
        sigma=SIGMA,
        classes=2,
        samples=100,
        selection=20,
        alpha=alpha,
        batch_size=5000,
    )
    wrong = int(((proven.radii > distance) | (proven.classes == 1)).sum())
    assert 0 < wrong <= repeats * alpha + 3 * math.sqrt(repeats * alpha * (1 - alpha))


def test_radii_of_simulated_counts_are_wrong_as_rarely_as_promised(generator: torch.Generator) -> None:
    repeats, alpha, p, n = 2000, 0.1, 0.8, 150
    hits = torch.binomial(torch.full((repeats,), float(n)), torch.tensor(p).expand(repeats), generator=generator).long()
    estimation = torch.stack([n - hits, hits], 1)
    proven = certificate(torch.tensor([[1, 9]]).expand(repeats, 2), estimation, 0.5, alpha)
    true_radius = 0.5 * math.sqrt(2) * torch.special.erfinv(torch.tensor(2 * p - 1, dtype=torch.float64)).item()
    wrong = int((proven.radii > true_radius).sum())
    assert 0 < wrong <= repeats * alpha + 3 * math.sqrt(repeats * alpha * (1 - alpha))


def test_a_coin_is_not_certified() -> None:
    proven = certify(Plane(0.0), grey(20), sigma=SIGMA, classes=2, samples=400, alpha=0.001)
    assert proven.abstained.all()
    assert (proven.classes == -1).all()
    assert (proven.radii == 0).all()
    counts = noise_counts(Plane(0.0), grey(20), sigma=SIGMA, samples=400, classes=2)
    assert (predict(counts, 0.001) == -1).all()


def test_the_class_is_chosen_by_other_noise_than_counts_it() -> None:
    selection, estimation = torch.tensor([[5, 4, 1], [5, 4, 1]]), torch.tensor([[5, 95, 0], [90, 6, 4]])
    proven = certificate(selection, estimation, 0.25, 0.01)
    assert proven.classes.tolist() == [-1, 0]
    assert proven.abstained.tolist() == [True, False]
    assert phi(proven.radii[1].item() / 0.25) == pytest.approx(lower_bound(90, 100, 0.01), rel=1e-9)


def test_certify_is_its_parts(images: Tensor) -> None:
    whole = certify(Five(), images, sigma=0.3, classes=5, samples=120, selection=30, alpha=0.05, seed=2)
    options = {"sigma": 0.3, "classes": 5, "seed": 2}
    selection = noise_counts(Five(), images, samples=30, stream="selection", **options)
    parts = certificate(selection, noise_counts(Five(), images, samples=120, **options), 0.3, 0.05)
    assert whole.classes.equal(parts.classes)
    assert whole.radii.equal(parts.radii)


@pytest.mark.parametrize(("first", "second"), [(9, 1), (60, 40), (55, 45), (500, 0), (0, 0), (64, 36)])
def test_predict_is_the_two_sided_test(first: int, second: int) -> None:
    n = first + second
    p_value = min(1.0, 2 * tail(n, first, 0.5)) if n else 1.0  # symmetric: both tails are alike
    for alpha in (0.001, 0.01, 0.05):
        answer = predict(torch.tensor([[second, 0, first]]), alpha).item()
        assert answer == (2 if p_value <= alpha else -1)


# The noise


def test_counts_depend_neither_on_the_batch_nor_on_where_they_begin(images: Tensor) -> None:
    options = {"sigma": 0.4, "classes": 5, "seed": 7}
    whole = noise_counts(Five(), images, samples=130, batch_size=1, **options)
    assert len(whole.unique()) > 5
    for batch_size in (3, 50, 64, 1000):
        assert noise_counts(Five(), images, samples=130, batch_size=batch_size, **options).equal(whole)
    for i in range(5):
        assert noise_counts(Five(), images[i : i + 1], samples=130, first=i, **options)[0].equal(whole[i])
    parts = [(0, 17), (17, 33), (50, 1), (51, 79)]
    summed = sum(noise_counts(Five(), images, samples=samples, start=start, **options) for start, samples in parts)
    assert isinstance(summed, Tensor)
    assert summed.equal(whole)
    assert not noise_counts(Five(), images, samples=130, first=1, **options).equal(whole)
    assert not noise_counts(Five(), images, samples=130, sigma=0.4, classes=5, seed=8).equal(whole)


def test_every_copy_has_normal_noise_of_its_own() -> None:
    draws = []
    for stream in ("selection", "estimation"):
        model = Seen()
        noise_counts(model, grey(3), sigma=SIGMA, samples=400, classes=2, batch_size=90, stream=stream)
        draws.append((torch.cat(model.batches) - 0.5).flatten(1) / SIGMA)
    noise = torch.cat(draws)
    assert noise.shape == (2400, 16)
    assert abs(noise.mean().item()) < 4 / math.sqrt(noise.numel())
    assert abs(noise.square().mean().item() - 1) < 4 * math.sqrt(2 / noise.numel())
    assert abs(noise.pow(4).mean().item() - 3) < 4 * math.sqrt(96 / noise.numel())
    likeness = (noise @ noise.T).fill_diagonal_(0) / 16
    assert torch.cdist(noise, noise).fill_diagonal_(9).min() > 0.5  # no draw is used twice
    assert abs(likeness.mean().item()) < 4 / math.sqrt(16 * 2400 * 2399 / 2)


def test_the_model_sees_images_in_the_box() -> None:
    model, white = Seen(), torch.ones(1, *SHAPE)
    noise_counts(model, white, sigma=2.0, samples=60, classes=2)
    seen = torch.cat(model.batches)
    assert (seen.min(), seen.max()) == (0, 1)
    assert 0.4 < (seen == 1).double().mean() < 0.6  # half the noise is positive


def test_nothing_of_the_caller_is_touched(images: Tensor) -> None:
    model = Five()
    model.layers[0].eval()
    flags = [module.training for module in model.modules()]
    before, state = images.clone(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    done: list[int] = []
    noise_counts(model, images, sigma=0.1, samples=60, classes=5, batch_size=128, on_batch=done.append)
    assert done == [128, 256, 300]
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert images.equal(before)
    assert all(tensor.equal(state[name]) for name, tensor in model.state_dict().items())
    assert torch.get_rng_state().equal(rng)


def test_other_precisions_and_an_empty_batch_serve(images: Tensor) -> None:
    expected = certify(Plane(0.05), images, sigma=0.1, classes=2, samples=50)
    double = certify(Plane(0.05).double(), images.double(), sigma=0.1, classes=2, samples=50)
    assert double.radii.equal(expected.radii)
    with torch.inference_mode():
        assert certify(Plane(0.05), images.clone(), sigma=0.1, classes=2, samples=50).radii.equal(expected.radii)
    empty = certify(Plane(0.05), images[:0], sigma=0.1, classes=2, samples=50)
    assert (len(empty.classes), len(empty.radii), len(empty.abstained)) == (0, 0, 0)


# Shares


def test_certified_accuracy_counts_what_is_right_and_proven_beyond_the_radius() -> None:
    proven = Certificates(
        torch.tensor([1, 1, 0, -1, 2]),
        torch.tensor([0.5, 0.25, 0.75, 0.0, 0.1], dtype=torch.float64),
        torch.tensor([False, False, False, True, False]),
    )
    labels = torch.tensor([1, 1, 1, 1, 2])  # the third is wrong, the fourth has none
    shares = certified_accuracy(proven, labels, [0.0, 0.1, 0.25, 0.5])
    assert shares == [Accuracy(k / 5, 5, *wilson_interval(k, 5)) for k in (3, 2, 1, 0)]
    assert average_radius(proven, labels) == pytest.approx((0.5 + 0.25 + 0.1) / 5)


# Refusals


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": -0.1}, "sigma is -0.1"),
        ({"sigma": math.inf}, "sigma is inf"),
        ({"samples": 0}, "samples is 0"),
        ({"selection": 0}, "samples is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"classes": 1}, "classes is 1"),
        ({"first": -1}, "first is -1"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": 1.0}, "alpha is 1.0"),
        ({"alpha": math.nan}, "alpha is nan"),
    ],
)
def test_senseless_numbers_are_refused(options: dict, pattern: str, images: Tensor) -> None:
    with pytest.raises(UsageError, match=pattern):
        certify(Plane(0.1), images, **{"sigma": 0.1, "classes": 2, **options})


def test_bounds_of_impossible_counts_are_refused() -> None:
    for successes in (-1, 6):
        with pytest.raises(UsageError, match=f"{successes} successes of 5"):
            lower_bound(successes, 5, 0.1)
    with pytest.raises(UsageError, match="trials is 0"):
        lower_bound(0, 0, 0.1)


def test_bad_images_and_models_are_refused_by_name(images: Tensor) -> None:
    class Broken(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            logits = batch.flatten(1)[:, :2].clone()
            logits[-1] = torch.nan
            return logits

    bright = images.clone()
    bright[3, 0, 0, 0] = 1.5
    with pytest.raises(InputError, match="image 3 leaves"):
        certify(Plane(0.1), bright, sigma=0.1, classes=2)
    with pytest.raises(InputError, match="2 classes, not 10"):
        certify(Plane(0.1), images, sigma=0.1, classes=10)
    with pytest.raises(InputError, match="image 1 has logits that are not finite"):
        noise_counts(Broken(), images, sigma=0.1, samples=30, classes=2, batch_size=60)
