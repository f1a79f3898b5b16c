"""Ensembles against the formula, and transfer against attacks made by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.attacks import L2, Linf, bim, deepfool, pgd
from quasinat.attacks.transfer import Ensemble, transfer
from quasinat.errors import InputError, UsageError

from .conftest import Linear, Perceptron, decisions


class Shaken(Perceptron):
    """The perceptron with its weights moved: another model of the same classes."""

    def __init__(self, seed: int, size: float = 0.1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))


class BlackBox(nn.Module):
    """Another model without its gradient; counts the images that it is shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, 0

    def forward(self, images: Tensor) -> Tensor:
        assert not images.requires_grad
        self.seen += len(images)
        with torch.no_grad():
            return self.model(images)


@pytest.fixture
def surrogates() -> list[nn.Module]:
    return [Shaken(1), Shaken(2), Shaken(3)]


def test_the_logits_are_the_log_of_the_weighted_mean_probability(surrogates: list[nn.Module], images: Tensor) -> None:
    ensemble = Ensemble(surrogates, [2.0, 1.0, 1.0]).eval()
    first, second, third = (model(images).softmax(1) for model in surrogates)
    assert torch.allclose(ensemble(images), (first / 2 + second / 4 + third / 4).log(), rtol=0, atol=1e-12)
    assert torch.allclose(ensemble(images).exp().sum(1), torch.ones(7, dtype=torch.float64))
    equal = Ensemble(surrogates).eval()
    assert torch.allclose(equal(images), ((first + second + third) / 3).log(), rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_the_publications_loss(
    surrogates: list[nn.Module], images: Tensor, labels: Tensor
) -> None:
    ensemble = Ensemble(surrogates, [2.0, 1.0, 1.0]).eval()
    leaf = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(ensemble(leaf), labels, reduction="sum"), leaf)

    def loss(at: Tensor) -> Tensor:  # -log((sum_m a_m J_m) . 1_y)
        with torch.no_grad():
            mean = sum(a * model(at).softmax(1) for a, model in zip((0.5, 0.25, 0.25), surrogates, strict=True))
            return -mean.gather(1, labels[:, None])[:, 0].log()

    h = 1e-5
    for row, column in ((0, 0), (2, 5), (5, 3)):
        shift = torch.zeros_like(images)
        shift[..., row, column] = h
        difference = (loss(images + shift) - loss(images - shift)) / (2 * h)
        assert torch.allclose(gradient[:, 0, row, column], difference, rtol=1e-6, atol=1e-8)


def test_a_model_that_is_sure_to_the_last_bit_has_finite_logits_and_gradient(images: Tensor) -> None:
    model = Linear(3)
    with torch.no_grad():
        model.weight *= 1e5  # softmax gives exact zeros, whose logarithm is -inf
    leaf = images.clone().requires_grad_(True)
    logits = Ensemble([model, model])(leaf)
    (gradient,) = torch.autograd.grad(logits.sum(), leaf)
    assert model(images).softmax(1).min() == 0
    assert logits.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("attack", [bim, pgd])
@pytest.mark.parametrize("loss", ["cross-entropy", "margin", "dlr"])
def test_an_ensemble_of_one_is_that_one(attack, loss: str, images: Tensor, labels: Tensor) -> None:
    alone, judge = Shaken(1), Shaken(2)
    direct = attack(alone, images, labels, budget=Linf(0.05), loss=loss, steps=10)
    moved = transfer(judge, images, labels, budget=Linf(0.05), surrogates=[alone], attack=attack, loss=loss, steps=10)
    assert torch.allclose(moved.images, direct.images, rtol=0, atol=1e-9)
    assert torch.equal(moved.stats["surrogate_success"], direct.success)
    assert torch.equal(moved.stats["surrogate_queries"], direct.queries)
    assert torch.equal(moved.success, decisions(judge, moved.images) != labels)


def test_it_transfers_perfectly_to_itself(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    moved = transfer(perceptron, images, labels, budget=Linf(0.05), surrogates=[perceptron])
    assert torch.equal(moved.success, bim(perceptron, images, labels, budget=Linf(0.05)).success)
    assert torch.equal(moved.success, moved.stats["surrogate_success"])
    assert torch.equal(moved.success, moved.stats["surrogates_fooled"] == 1)
    assert moved.success[:-1].any()


def test_success_is_the_judges_and_the_stats_are_the_surrogates(
    surrogates: list[nn.Module], perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    targets = (labels + 1) % 5
    for aim in (None, targets):
        moved = transfer(perceptron, images, labels, budget=L2(0.12), surrogates=surrogates, targets=aim)

        def reached(model: nn.Module, at: Tensor = moved.images, aim: Tensor | None = aim) -> Tensor:
            said = decisions(model, at)
            return said != labels if aim is None else said == aim

        assert torch.equal(moved.success, reached(perceptron))
        assert torch.equal(moved.stats["surrogate_success"], reached(Ensemble(surrogates)))
        fooled = sum(reached(model).long() for model in surrogates)
        assert torch.equal(moved.stats["surrogates_fooled"], fooled)
        assert 0 < fooled.sum() < 3 * len(images)  # neither all nor none: the comparison can fail


def test_the_judge_is_asked_once_and_lends_no_gradient(
    surrogates: list[nn.Module], perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    judge = BlackBox(perceptron)
    moved = transfer(judge, images, labels, budget=Linf(0.05), surrogates=surrogates)
    assert judge.seen == len(images)
    assert moved.queries.tolist() == [1] * len(images)


def test_nothing_of_judge_or_surrogates_is_touched(
    surrogates: list[nn.Module], perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    models = [perceptron, *surrogates]
    surrogates[1].eval()
    surrogates[2].layers[3].eval()  # type: ignore[index]
    flags = [[module.training for module in model.modules()] for model in models]
    weights = [[parameter.clone() for parameter in model.parameters()] for model in models]
    transfer(perceptron, images, labels, budget=Linf(0.05), surrogates=surrogates)
    with pytest.raises(InputError):
        transfer(perceptron, images, labels + 100, budget=Linf(0.05), surrogates=surrogates)
    assert [[module.training for module in model.modules()] for model in models] == flags
    for model, before in zip(models, weights, strict=True):
        for parameter, old in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter, old)
            assert parameter.grad is None
            assert parameter.requires_grad


def test_one_image_alone_fares_as_in_its_batch(
    surrogates: list[nn.Module], perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    together = transfer(perceptron, images, labels, budget=Linf(0.05), surrogates=surrogates)
    alone = transfer(perceptron, images[3:4], labels[3:4], budget=Linf(0.05), surrogates=surrogates)
    assert torch.allclose(alone.images[0], together.images[3], rtol=0, atol=1e-9)
    assert alone.stats["surrogates_fooled"][0] == together.stats["surrogates_fooled"][3]


def test_options_reach_the_attack_and_other_attacks_serve(
    surrogates: list[nn.Module], perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    moved = transfer(
        perceptron, images, labels, budget=L2(0.3), surrogates=surrogates, attack=deepfool, overshoot=0.1, candidates=3
    )
    direct = deepfool(Ensemble(surrogates), images, labels, budget=L2(0.3), overshoot=0.1, candidates=3)
    assert torch.equal(moved.images, direct.images)


def test_senseless_ensembles_are_refused(images: Tensor, labels: Tensor, perceptron: Perceptron) -> None:
    with pytest.raises(UsageError, match="no models"):
        transfer(perceptron, images, labels, budget=Linf(0.1), surrogates=[])
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]):
        with pytest.raises(UsageError, match="weights"):
            transfer(perceptron, images, labels, budget=Linf(0.1), surrogates=[perceptron, perceptron], weights=weights)
    with pytest.raises(InputError, match="5, 4 classes"):
        transfer(perceptron, images, labels * 0, budget=Linf(0.1), surrogates=[perceptron, Linear(4)])
