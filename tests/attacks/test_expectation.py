"""Randomised models whose expected gradient, variance and probability of being right are known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.attacks import Linf, bim, fgsm, pgd
from quasinat.attacks.expectation import Expectation, mean_cross_entropy, worst_of
from quasinat.errors import InputError, UsageError

from .conftest import Linear, Perceptron, decisions


class NoisyWeights(nn.Module):
    """(W + s N) x + b with a fresh normal N each time: the expected gradient of a logit is its row of W."""

    def __init__(self, deviation: float, classes: int = 3) -> None:
        super().__init__()
        self.linear, self.deviation = Linear(classes), deviation

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.randn(self.linear.weight.shape, dtype=images.dtype)
        return self.linear(images) + self.deviation * (images - 0.5).flatten(1) @ noise.T


class NoisyInputs(nn.Module):
    """A curved model behind noise on its images."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.model, self.deviation = Perceptron(), deviation

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images + self.deviation * torch.randn(images.shape, dtype=images.dtype))


class Coin(nn.Module):
    """Says class 0 with a probability, for each image by itself, and otherwise class 1."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, images: Tensor) -> Tensor:
        right = torch.rand(len(images)) < self.probability
        return torch.stack([right.float(), 1 - right.float()], 1)


class Breaking(nn.Module):
    """Draws, and then fails."""

    def forward(self, images: Tensor) -> Tensor:
        torch.rand(3)
        raise RuntimeError("out of order")


def difference_gradient(model: nn.Module, images: Tensor) -> Tensor:
    """The gradient of logit 1 less logit 0, of one image: a shift of all logits is no part of it."""
    leaf = images[:1].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(leaf)[0, :2].diff(), leaf)
    return gradient.flatten()


@pytest.mark.parametrize("samples", [1, 4, 16, 64])
def test_the_gradient_is_the_expected_one_and_its_variance_falls_like_one_over_the_samples(
    samples: int, images: Tensor
) -> None:
    deviation = 2.0
    model = NoisyWeights(deviation)
    expected = (model.linear.weight[1] - model.linear.weight[0]).detach()
    errors = torch.stack(
        [difference_gradient(Expectation(model, samples, seed), images) - expected for seed in range(20)]
    )
    variance = 2 * deviation**2 / samples  # of a difference of two independent entries
    entries = errors.numel()  # 720: the mean deviates by sqrt(v / n), the variance by v sqrt(2 / n)
    assert errors.mean().abs() < 4 * math.sqrt(variance / entries)
    assert abs(errors.var() - variance) < 4 * variance * math.sqrt(2 / entries)


def test_the_mean_cross_entropys_gradient_is_the_mean_of_the_evaluations(images: Tensor, labels: Tensor) -> None:
    model = NoisyInputs(0.3).eval()
    leaf = images.clone().requires_grad_(True)
    torch.manual_seed(7)
    by_hand = torch.stack([F.cross_entropy(model(leaf), labels, reduction="none") for _ in range(9)]).mean(0)
    (expected,) = torch.autograd.grad(by_hand.sum(), leaf)
    torch.manual_seed(7)
    logits = Expectation(model, 9, seed=None)(leaf)
    losses = mean_cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf, retain_graph=True)
    assert torch.allclose(losses, by_hand, rtol=0, atol=1e-12)
    assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)
    assert torch.equal(mean_cross_entropy(logits, labels, labels), -losses)
    # The plain cross-entropy renormalises: it is lower by what the evaluations disagree.
    disagreement = -logits.logsumexp(1)
    assert (disagreement > 0).all()
    plain = F.cross_entropy(logits, labels, reduction="none")
    assert torch.allclose(plain, losses - disagreement, rtol=0, atol=1e-12)


def test_it_is_the_mean_of_the_logits_but_for_a_shift(images: Tensor) -> None:
    model = NoisyInputs(0.3).eval()
    torch.manual_seed(3)
    mean = torch.stack([model(images) for _ in range(5)]).mean(0)
    torch.manual_seed(3)
    shift = Expectation(model, 5, seed=None)(images) - mean
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), rtol=0, atol=1e-12)


def test_a_deterministic_model_is_its_own_expectation(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    expectation = Expectation(perceptron, 4)
    perceptron.eval()
    assert torch.allclose(expectation(images), perceptron(images).log_softmax(1), rtol=0, atol=1e-12)
    for attack in (fgsm, bim, pgd):
        options = {} if attack is fgsm else {"steps": 5}
        averaged = attack(expectation, images, labels, budget=Linf(0.05), **options)
        assert torch.allclose(
            averaged.images, attack(perceptron, images, labels, budget=Linf(0.05), **options).images, rtol=0, atol=1e-9
        )


def test_an_attack_on_the_expectation_follows_the_gradient_that_one_draw_hides(images: Tensor) -> None:
    model = NoisyWeights(3.0, classes=2)
    labels = decisions(model.linear, images)
    best = fgsm(model.linear, images, labels, budget=Linf(0.05)).images

    def agreement(attacked: Tensor) -> float:
        return float(((attacked - images).sign() == (best - images).sign()).double().mean())

    single = agreement(fgsm(Expectation(model, 1), images, labels, budget=Linf(0.05)).images)
    averaged = agreement(fgsm(Expectation(model, 1000), images, labels, budget=Linf(0.05)).images)
    # A sign is right with probability Phi(|w| sqrt(n) / 3 sqrt 2), w the entry of the expected gradient.
    weights = (model.linear.weight[1] - model.linear.weight[0]).detach().abs() / (3 * math.sqrt(2))
    for found, samples in ((single, 1), (averaged, 1000)):
        chances = torch.special.ndtr(weights * math.sqrt(samples))
        deviation = (chances * (1 - chances)).sum().sqrt() / len(chances)
        assert abs(found - chances.mean()) < 4 * deviation + 1e-9
    assert single < 0.75 < 0.9 < averaged


def test_a_seed_repeats_its_draws_and_none_draws_afresh(images: Tensor) -> None:
    model = NoisyInputs(0.3).eval()
    state = torch.get_rng_state()
    first, again, other = (Expectation(model, 3, seed)(images) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    fresh = Expectation(model, 3, None)
    assert not torch.allclose(fresh(images), fresh(images))


def test_the_evaluations_of_one_call_differ_and_more_keep_the_first(images: Tensor) -> None:
    model = NoisyInputs(0.3).eval()
    one, two, three = (n * Expectation(model, n)(images) for n in (1, 2, 3))
    assert not torch.allclose(two - one, one)
    assert not torch.allclose(three - two, two - one)
    assert torch.allclose(2 * Expectation(model, 2)(images), two)


def test_the_generator_comes_back_after_an_error(images: Tensor, labels: Tensor) -> None:
    state = torch.get_rng_state()
    for call in (lambda: Expectation(Breaking())(images), lambda: worst_of(Breaking(), images, labels, submissions=2)):
        with pytest.raises(RuntimeError, match="out of order"):
            call()
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("probability", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("submissions", [1, 2, 7])
@pytest.mark.parametrize("seed", [0, None])
def test_a_coin_survives_with_the_power_of_its_probability(
    probability: float, submissions: int, seed: int | None
) -> None:
    torch.manual_seed(0)
    count = 4000
    right = worst_of(
        Coin(probability),
        torch.zeros(count, 1, 1, 1),
        torch.zeros(count, dtype=torch.int64),
        submissions=submissions,
        seed=seed,
    )
    expected = probability**submissions
    assert abs(right.double().mean() - expected) <= 4 * math.sqrt(expected * (1 - expected) / count)


def test_more_submissions_never_help_the_model() -> None:
    images, labels = torch.zeros(500, 1, 1, 1), torch.zeros(500, dtype=torch.int64)
    before = torch.ones(500, dtype=torch.bool)
    for submissions in range(1, 6):
        right = worst_of(Coin(0.7), images, labels, submissions=submissions)
        assert (before | ~right).all()
        before = right


def test_a_deterministic_model_has_one_outcome(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    state = torch.get_rng_state()
    for submissions in (1, 5):
        right = worst_of(perceptron, images, labels, submissions=submissions)
        assert torch.equal(right, decisions(perceptron, images) == labels)
    assert right.tolist() == [True] * 6 + [False]
    assert all(module.training for module in perceptron.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_senseless_requests_are_refused(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(UsageError, match="samples is 0"):
        Expectation(perceptron, 0)
    with pytest.raises(UsageError, match="submissions is 0"):
        worst_of(perceptron, images, labels, submissions=0)
    with pytest.raises(InputError, match="image 0 has a label beyond"):
        worst_of(perceptron, images, labels + 100, submissions=1)
