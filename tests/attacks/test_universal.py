"""The optimum on a linear model, Algorithm 1 written out, and another package's attack on a small trained net."""

import random
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quasinat.attacks import L2, Budget, Dissimilarity, Linf, deepfool
from quasinat.attacks.universal import UniversalPerturbation, add_universal, universal, universal_perturbation
from quasinat.errors import InputError, UsageError

from .conftest import BUDGETS, SHAPE, Linear, Perceptron, decisions

METHODS = ["deepfool", "gradient"]
every_method = pytest.mark.parametrize("method", METHODS)


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of four classes: a class's own pattern, faint under noise."""
    patterns = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(17))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    noise = torch.randn(count, *SHAPE, generator=generator)
    return (0.5 + 0.3 * (patterns[labels] - 0.5) + 0.12 * noise).clamp(0, 1), labels


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A small net that is right about 9 of 10 new images."""
    images, labels = drawn(400, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(Stretched(), nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 4))
    weights = list(net.parameters())
    for _ in range(150):
        gradients = torch.autograd.grad(F.cross_entropy(net(images), labels), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.2 * gradient
    return net


class Stretched(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 4 * images - 2


def fooled(model: nn.Module, images: Tensor, v: Tensor, budget: Budget) -> float:
    """The share of images whose decision changes; spelt out for a perturbation inside its ball."""
    if isinstance(budget, Dissimilarity):
        lengths = budget.value * torch.linalg.vector_norm(images.flatten(1), dim=1)
        v = v * (lengths / v.norm())[:, None, None, None]
    return float((decisions(model, (images + v).clamp(0, 1)) != decisions(model, images)).double().mean())


@every_method
@pytest.mark.parametrize("kind", [Linf, L2])
def test_of_a_linear_model_with_one_label_it_is_the_optimum(method: str, kind: type[Budget], images: Tensor) -> None:
    model = Linear(2)
    w = (model.weight[1] - model.weight[0]).detach().view(SHAPE)
    gaps = -model(images).detach().diff(dim=1)[:, 0]  # logit 0 less logit 1: v must gain this much
    assert (gaps > 0).all()
    gain = w.abs().sum() if kind is Linf else w.norm()
    best = w.sign() if kind is Linf else w / w.norm()
    nearly = 0.999 * float(gaps.min() / gain)  # no v of the ball fools any image, and the learning goes on
    found = universal_perturbation(
        model, images, images.new_zeros(7).long(), budget=kind(nearly), method=method, passes=25, batch_size=2
    )
    assert (found.fooling_rate, found.passes) == (0.0, 25)
    if (method, kind) == ("deepfool", Linf):  # its pushes are along w itself: a pixel of almost no weight stays inside
        assert found.perturbation.abs().max() <= nearly * (1 + 1e-12)
        assert (found.perturbation * w).sum() > 0.995 * nearly * gain
    else:
        assert torch.allclose(found.perturbation, nearly * best, rtol=0, atol=1e-6 * nearly)
    enough = 1.05 * float(gaps.max() / gain)
    found = universal_perturbation(
        model, images, images.new_zeros(7).long(), budget=kind(enough), method=method, fooling_rate=1.0, passes=25
    )
    assert found.fooling_rate == 1.0


@pytest.mark.parametrize("budget", [Linf(0.1), L2(0.5)], ids=str)
def test_one_image_at_a_time_is_algorithm_1(budget: Budget, trained: nn.Module) -> None:
    images, _ = drawn(16, 2)
    found = universal_perturbation(
        trained, images, budget=budget, fooling_rate=0.999, passes=2, steps=5, batch_size=1, seed=3
    )
    own, generator = decisions(trained, images), torch.Generator().manual_seed(3)
    best, v = (0.0, torch.zeros(SHAPE)), torch.zeros(SHAPE)
    for _ in range(2):
        for i in torch.randperm(16, generator=generator).tolist():
            moved = (images[i] + v).clamp(0, 1)[None]
            if decisions(trained, moved) == own[i]:
                pushed = deepfool(trained, moved, own[i : i + 1], steps=5)
                if pushed.success:
                    v = v + (pushed.images - moved)[0]
                    v = (
                        v.clamp(-budget.size, budget.size)
                        if isinstance(budget, Linf)
                        else v * min(1.0, budget.size / float(v.norm()))
                    )
        best = max(best, (fooled(trained, images, v, budget), v), key=lambda pair: pair[0])
    assert found.fooling_rate == pytest.approx(best[0])
    assert torch.allclose(found.perturbation, best[1], rtol=0, atol=1e-6)
    assert found.fooling_rate > 0.2


@every_method
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_it_keeps_to_its_ball_and_its_rate_is_true(method: str, budget: Budget, trained: nn.Module) -> None:
    images, _ = drawn(60, 2)
    found = universal_perturbation(trained, images, budget=budget, method=method, passes=3)
    norm = found.perturbation.abs().max() if isinstance(budget, Linf) else found.perturbation.norm()
    radius = budget.size
    if isinstance(budget, Dissimilarity):
        radius *= float(torch.linalg.vector_norm(images.flatten(1), dim=1).mean())
    assert 0 < norm <= radius * (1 + 1e-5)
    assert found.fooling_rate == pytest.approx(fooled(trained, images, found.perturbation, budget))


@every_method
def test_it_fools_images_that_it_was_not_learnt_on_and_noise_does_not(method: str, trained: nn.Module) -> None:
    images, _ = drawn(60, 2)
    others, labels = drawn(300, 4)
    assert (decisions(trained, others) == labels).double().mean() > 0.85
    budget = Linf(0.12)
    found = universal_perturbation(trained, images, budget=budget, method=method, passes=4)
    own = decisions(trained, others)
    rate = universal(trained, others, own, budget=budget, perturbation=found.perturbation).success.double().mean()
    noise = 0.12 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).sign()
    assert rate > 0.4
    assert rate > 2 * fooled(trained, others, noise, budget)


@pytest.mark.parametrize("budget", [Linf(0.12), L2(0.6)], ids=str)
def test_it_fools_no_fewer_than_arts(budget: Budget, trained: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other package's own imports
        evasion = pytest.importorskip("art.attacks.evasion")
        estimators = pytest.importorskip("art.estimators.classification")
    images, _ = drawn(40, 2)
    others, _ = drawn(300, 4)
    classifier = estimators.PyTorchClassifier(
        trained, nn.CrossEntropyLoss(), SHAPE, 4, clip_values=(0.0, 1.0), device_type="cpu"
    )
    art = evasion.UniversalPerturbation(
        classifier,
        attacker_params={"max_iter": 10, "epsilon": 0.02, "verbose": False},
        delta=0.01,
        max_iter=3,
        eps=budget.size,
        norm="inf" if isinstance(budget, Linf) else 2,
        verbose=False,
    )
    random.seed(0)  # the other package's order of the images
    art.generate(images.numpy())
    assert budget.norms(torch.from_numpy(art.noise)).item() == pytest.approx(budget.size, rel=1e-5)
    theirs = fooled(trained, others, torch.from_numpy(art.noise[0]), budget)
    for method in METHODS:
        found = universal_perturbation(trained, images, budget=budget, method=method, fooling_rate=0.99, passes=3)
        ours = fooled(trained, others, found.perturbation, budget)
        assert ours >= theirs


@every_method
def test_it_ends_after_the_pass_that_is_enough(method: str, trained: nn.Module) -> None:
    images, _ = drawn(60, 2)
    seen: list[tuple[int, float]] = []
    found = universal_perturbation(
        trained,
        images,
        budget=Linf(0.15),
        method=method,
        fooling_rate=0.5,
        on_pass=lambda done, rate: seen.append((done, rate)),
    )
    assert [done for done, _ in seen] == list(range(1, found.passes + 1))
    assert [rate >= 0.5 for _, rate in seen] == [False] * (len(seen) - 1) + [True]
    assert seen[-1] == (found.passes, found.fooling_rate)


@every_method
def test_nothing_of_the_caller_is_touched_and_a_seed_repeats(
    method: str, perceptron: Perceptron, images: Tensor
) -> None:
    perceptron.layers[0].eval()
    flags = [module.training for module in perceptron.modules()]
    before, state = images.clone(), torch.get_rng_state()
    images.requires_grad_(True)

    def learnt(seed: int) -> UniversalPerturbation:
        with torch.no_grad():
            return universal_perturbation(
                perceptron, images, budget=L2(0.05), method=method, passes=2, batch_size=2, fooling_rate=1.0, seed=seed
            )

    first, again, other = (learnt(seed).perturbation for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad
    assert [module.training for module in perceptron.modules()] == flags
    assert all(parameter.grad is None for parameter in perceptron.parameters())
    assert torch.equal(images, before)
    assert images.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_added_to_an_image_it_keeps_to_the_images_budget_and_the_flags_are_true(
    budget: Budget, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    v = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = universal(perceptron, images, labels, budget=budget, perturbation=v)
    sizes = torch.full((7,), budget.size, dtype=torch.float64)
    assert torch.allclose(budget.measure(images, result.images), sizes)  # v is larger: every budget is used up
    assert torch.equal(result.success, decisions(perceptron, result.images) != labels)
    assert result.queries.tolist() == [1] * 7
    assert all(module.training for module in perceptron.modules())
    alone = universal(perceptron, images[3:4], labels[3:4], budget=budget, perturbation=v)
    assert torch.equal(alone.images[0], result.images[3])
    small = add_universal(images, 1e-3 * v / v.abs().max(), budget)
    if isinstance(budget, Dissimilarity):  # relative: each image at its own radius
        assert torch.allclose(budget.measure(images, small), sizes)
    else:
        assert torch.allclose(small, images + 1e-3 * v / v.abs().max())


def test_senseless_requests_are_refused(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    def refused(kind: type[Exception], pattern: str, **options: object) -> None:
        with pytest.raises(kind, match=pattern):
            universal_perturbation(perceptron, **{"images": images, "budget": Linf(0.1), **options})

    refused(UsageError, "did you mean 'gradient'", method="gradients")
    for rate in (0.0, 1.1, float("nan")):
        refused(UsageError, "fooling_rate", fooling_rate=rate)
    for name in ("passes", "steps", "batch_size"):
        refused(UsageError, f"{name} is 0", **{name: 0})
    refused(UsageError, "candidates is 1", candidates=1)
    refused(UsageError, "overshoot", overshoot=-1.0)
    refused(InputError, "no images", images=images[:0])
    refused(InputError, "image 0 has a label beyond", labels=labels + 100)
    for v in (torch.zeros(1, 5, 6), torch.full(SHAPE, float("nan"))):
        with pytest.raises(InputError, match="perturbation"):
            universal(perceptron, images, labels, budget=Linf(0.1), perturbation=v)
    assert all(module.training for module in perceptron.modules())
