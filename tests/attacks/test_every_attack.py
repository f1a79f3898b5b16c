"""What all attacks of the registry have in common."""

import math

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import ATTACKS, L2, Budget, Dissimilarity, Linf, attack_named
from quasinat.errors import InputError, UsageError

from .conftest import BUDGETS, Constant, Perceptron, decisions

QUICK = {
    "carlini-wagner": {"steps": 10, "search_steps": 3, "initial_constant": 1.0},
    "pgd": {"restarts": 2, "steps": 10},
    "apgd": {"restarts": 2, "steps": 10},
    "apgd-targeted": {"classes": 2, "steps": 10},
    "lbfgs": {"steps": 8, "search_steps": 3},
    "square": {"queries": 30},
    "one-pixel": {"population": 20, "generations": 3},
    "finite-difference": {"steps": 4, "coordinates": 12},
}
SPECIAL = ("transfer", "universal", "routing", "low-pass", "active-span", "auto-attack")  # which need more than a model
GENERAL = [name for name in ATTACKS if name not in SPECIAL]
BLIND = ("random-noise", "square", "one-pixel", "finite-difference")  # which need no gradient
STOPPING = ("deepfool", "lbfgs", "square", "one-pixel", "finite-difference", "apgd-targeted")  # at success
SIZES = [kind(size) for kind in (Linf, L2, Dissimilarity) for size in (0.0, math.inf)]
every_attack = pytest.mark.parametrize("name", GENERAL)


def attack(name: str, model: nn.Module, images: Tensor, labels: Tensor, budget: Budget, **options: object):
    return ATTACKS[name](model, images, labels, budget=budget, **QUICK.get(name, {}), **options)


@every_attack
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_one_image_alone_fares_as_in_its_batch(
    name: str, budget: Budget, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    together = attack(name, perceptron, images, labels, budget)
    for i in (0, 3, 6):
        alone = attack(name, perceptron, images[i : i + 1], labels[i : i + 1], budget)
        assert torch.allclose(alone.images[0], together.images[i], rtol=0, atol=1e-9)
        assert alone.success[0] == together.success[i]
        assert alone.queries[0] == together.queries[i]


@every_attack
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_result_is_in_ball_and_box_and_its_flags_are_true(
    name: str, budget: Budget, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    result = attack(name, perceptron, images, labels, budget)
    assert (budget.measure(images, result.images) <= budget.size * (1 + 1e-9)).all()
    assert ((result.images >= 0) & (result.images <= 1)).all()
    assert torch.equal(result.success, decisions(perceptron, result.images) != labels)
    assert (result.queries > 0).all()


@every_attack
def test_nothing_of_the_caller_is_touched(name: str, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    before_images, before_labels = images.clone(), labels.clone()
    perceptron.layers[0].eval()
    flags = [module.training for module in perceptron.modules()]
    rng = torch.get_rng_state()
    images.requires_grad_(True)
    with torch.no_grad():
        result = attack(name, perceptron, images, labels, Linf(0.1))
    assert [module.training for module in perceptron.modules()] == flags
    assert all(parameter.grad is None for parameter in perceptron.parameters())
    assert images.grad is None
    assert torch.equal(images, before_images)
    assert torch.equal(labels, before_labels)
    assert torch.equal(torch.get_rng_state(), rng)
    assert not result.images.requires_grad


@every_attack
def test_the_mode_comes_back_after_an_error(name: str, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(InputError):
        attack(name, perceptron, images, labels + 100, Linf(0.1))
    assert all(module.training for module in perceptron.modules())


@every_attack
@pytest.mark.parametrize("budget", SIZES, ids=str)
def test_a_budget_of_zero_does_nothing_and_an_infinite_one_breaks_the_model(
    name: str, budget: Budget, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    result = attack(name, perceptron, images, labels, budget)
    if budget.size == 0:
        assert torch.equal(result.images, images)
        assert result.success.tolist() == [False] * 6 + [True]
    elif name in ("bim", "pgd", "apgd"):
        assert result.success.all()


@every_attack
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_of_the_images_is_kept(name: str, dtype: torch.dtype, images: Tensor, labels: Tensor) -> None:
    result = attack(name, Perceptron(dtype=dtype), images.to(dtype), labels, Dissimilarity(0.05))
    assert result.images.dtype == dtype
    assert result.images.isfinite().all()


@every_attack
def test_an_empty_batch_has_an_empty_result(name: str, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    result = attack(name, perceptron, images[:0], labels[:0], L2(0.1))
    assert (len(result.images), len(result.success), len(result.queries)) == (0, 0, 0)


@every_attack
def test_images_made_in_inference_mode_serve(name: str, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    expected = attack(name, perceptron, images, labels, L2(0.1))
    with torch.inference_mode():
        result = attack(name, perceptron, images.clone(), labels.clone(), L2(0.1))
    assert torch.equal(result.images, expected.images)


@every_attack
def test_bad_batches_are_refused_by_name(name: str, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    def refused(pattern: str, images: Tensor = images, labels: Tensor = labels, model: nn.Module = perceptron) -> None:
        with pytest.raises(InputError, match=pattern):
            attack(name, model, images, labels, Linf(0.1))

    hole, bright, beyond, negative = images.clone(), images.clone(), labels.clone(), labels.clone()
    hole[4, 0, 2, 2], bright[3, 0, 0, 0], beyond[2], negative[5] = math.nan, 1.5, 5, -1
    refused("image 4 holds NaN", images=hole)
    refused("image 3 leaves", images=bright)
    refused("image 2 has a label beyond .* from 0 to 4", labels=beyond)
    refused("image 5 has a negative label", labels=negative)
    refused("image 0 has logits that are not finite", model=Constant([1.0, math.nan, 0.0, 0.0, 0.0]))
    refused("1 classes", model=Constant([1.0]), labels=labels * 0)
    refused("floating-point logits", model=nn.Flatten(0))


@pytest.mark.parametrize("name", [name for name in GENERAL if name not in BLIND])
def test_a_model_without_gradients_is_refused(name: str, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(InputError, match="no gradient"):
        attack(name, Constant([1.0, 0.0], attached=False), images, labels * 0, Linf(0.1))


@every_attack
def test_a_flat_model_survives_without_a_crash(name: str, images: Tensor, labels: Tensor) -> None:
    result = attack(name, Constant([1.0, 0.0]), images, labels * 0, L2(0.1))
    assert not result.success.any()
    assert result.images.isfinite().all()


@pytest.mark.parametrize("name", [name for name in GENERAL if name not in ("fgsm", "random-noise")])
def test_iterated_attacks_report_their_progress(
    name: str, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    seen: list[tuple[int, int]] = []
    attack(name, perceptron, images, labels, Linf(0.1), on_step=lambda done, steps: seen.append((done, steps)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert len({steps for _, steps in seen}) == 1
    assert seen[-1][0] == seen[-1][1] or name in STOPPING


@pytest.mark.parametrize("name", ["pgd", "apgd", "square", "random-noise"])
def test_a_seed_repeats_and_another_differs(name: str, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    first, again, other = (attack(name, perceptron, images, labels, L2(0.2), seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "options", "pattern"),
    [
        ("bim", {"steps": 0}, "steps is 0"),
        ("bim", {"step_size": -1.0}, "step_size"),
        ("pgd", {"restarts": 0}, "restarts is 0"),
        ("deepfool", {"candidates": 1}, "candidates is 1"),
        ("deepfool", {"overshoot": -0.1}, "overshoot"),
        ("carlini-wagner", {"search_steps": 0}, "search_steps"),
        ("carlini-wagner", {"learning_rate": math.nan}, "learning_rate"),
        ("carlini-wagner", {"initial_constant": 0.0}, "initial_constant"),
        ("carlini-wagner", {"confidence": math.inf}, "confidence"),
    ],
)
def test_senseless_options_are_refused(
    name: str, options: dict, pattern: str, perceptron: Perceptron, images: Tensor, labels: Tensor
) -> None:
    with pytest.raises(UsageError, match=pattern):
        ATTACKS[name](perceptron, images, labels, budget=Linf(0.1), **options)


def test_a_misspelt_attack_names_the_close_match() -> None:
    assert attack_named("deepfool") is ATTACKS["deepfool"]
    with pytest.raises(UsageError, match="did you mean 'carlini-wagner'"):
        attack_named("carlini_wagner")
