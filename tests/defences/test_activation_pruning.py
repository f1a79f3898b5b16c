"""SAP: its probabilities and mean against the formulas, by many draws; each image's own draws; a network left alone."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import Expectation, Linf, pgd
from quasinat.defences import with_seed
from quasinat.defences.activation_pruning import ActivationPruning, keep_probabilities, prune_activations
from quasinat.defences.draws import generators
from quasinat.errors import UsageError
from quasinat.networks import VGG, vgg

DRAWS = 4000


def activations(dtype: torch.dtype = torch.float64) -> Tensor:
    """Two images' activations of one layer, a third of them zero, over three orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).exp()
    return torch.where(torch.rand(values.shape, generator=generator) < 1 / 3, 0.0, values).to(dtype)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def by_hand(image: Tensor, samples: float) -> Tensor:
    values = image.flatten().tolist()
    total = sum(abs(value) for value in values)
    kept = [1 - math.exp(-samples * len(values) * abs(value) / total) for value in values]
    return torch.tensor(kept, dtype=image.dtype).view_as(image)


def many(h: Tensor, samples: float) -> Tensor:
    """`DRAWS` independent prunings of one image's activations."""
    together = h[:1].expand(DRAWS, *h.shape[1:])
    return prune_activations(together, samples=samples, generators=seeded(*range(DRAWS)))


@pytest.mark.parametrize("samples", [0.3, 2.0])
def test_the_probabilities_are_those_of_the_formula(samples: float) -> None:
    h = activations()
    expected = torch.stack([by_hand(image, samples) for image in h])
    torch.testing.assert_close(keep_probabilities(h, samples), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(keep_probabilities(-h, samples), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(keep_probabilities(1e3 * h, samples), expected, rtol=1e-9, atol=1e-12)


def test_they_are_near_those_of_the_papers_draws() -> None:
    """1 - (1 - p)^N of Dhillon et al., Algorithm 1, is greater by at most N p^2 e^(-N p), the first term left out."""
    h = activations()
    p = h / h.sum((1, 2, 3), keepdim=True)
    number = 2 * h[0].numel()
    difference = 1 - (1 - p) ** number - keep_probabilities(h, 2.0)
    assert float(difference.min()) > -1e-12
    assert bool((difference <= number * p.square() * torch.exp(-number * p) + 1e-12).all())


@pytest.mark.parametrize("samples", [0.3, 2.0])
def test_activations_are_kept_as_often_as_they_should(samples: float) -> None:
    h = activations()
    q = by_hand(h[0], samples)
    often = (many(h, samples) != 0).double().mean(0)
    error = (q * (1 - q) / DRAWS).sqrt()
    assert bool(((often - q).abs() <= 5 * error + 1e-12).all())
    assert float(q[h[0] > 0].min()) < 0.1 < 0.9 < float(q.max())  # rare ones and sure ones


@pytest.mark.parametrize("samples", [0.3, 2.0])
def test_the_mean_is_the_activation_itself(samples: float) -> None:
    """Within five standard errors, from the exact variance h^2 (1 - q) / q, of each unit and of the mean of all."""
    h = activations()
    q = by_hand(h[0], samples)
    outputs = many(h, samples)
    variance = torch.where(h[0] > 0, h[0].square() * (1 - q) / q.clamp_min(1e-300), 0.0)
    assert bool(((outputs.mean(0) - h[0]).abs() <= 5 * (variance / DRAWS).sqrt() + 1e-9).all())
    z = (outputs.mean() - h[0].mean()) / (variance.sum() / DRAWS).sqrt() * h[0].numel()
    assert abs(float(z)) < 4
    found = outputs.var(0)
    assert float(found.sum()) == pytest.approx(float(variance.sum()), rel=0.1)


def test_units_are_kept_independently_of_each_other() -> None:
    """The number kept has the variance of a sum of independent draws."""
    h = activations()
    q = by_hand(h[0], 0.3)
    counts = (many(h, 0.3) != 0).flatten(1).sum(1).double()
    assert float(counts.var()) == pytest.approx(float((q * (1 - q)).sum()), rel=0.12)


def test_what_is_kept_is_divided_by_its_probability_and_zeros_stay() -> None:
    h = activations()
    output = prune_activations(h, samples=0.5, generators=seeded(1, 2))
    kept = output != 0
    assert 0 < int(kept.sum()) < int((h != 0).sum())
    torch.testing.assert_close(output[kept], (h / keep_probabilities(h, 0.5))[kept], rtol=1e-12, atol=0)
    assert not bool(kept[h == 0].any())
    zeros = torch.zeros(2, 3, 4)
    assert prune_activations(zeros, samples=2.0, generators=seeded(1, 2)).equal(zeros)


def test_the_gradient_is_the_fixed_masks() -> None:
    h = activations().requires_grad_()
    output = prune_activations(h, samples=0.5, generators=seeded(1, 2))
    weights = torch.randn(h.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * output).sum(), h)
    mask = torch.where(output != 0, 1 / keep_probabilities(h, 0.5), 0.0).detach()
    torch.testing.assert_close(gradient, weights * mask, rtol=1e-12, atol=1e-12)
    assert bool((gradient[output == 0] == 0).all())


def test_its_mean_is_the_derivative_of_the_mean() -> None:
    """Which is 1: E[output] = h. Within five standard errors, of the exact variance (1 - q) / q."""
    h = activations()
    q = by_hand(h[0], 2.0)
    together = h[:1].expand(DRAWS, *h.shape[1:]).clone().requires_grad_()
    output = prune_activations(together, samples=2.0, generators=seeded(*range(DRAWS)))
    (gradient,) = torch.autograd.grad(output.sum(), together)
    there = h[0] > 0
    error = ((1 - q) / q / DRAWS).sqrt()[there]
    assert bool(((gradient.mean(0)[there] - 1).abs() <= 5 * error + 1e-9).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_shapes_and_each_image_on_its_own(dtype: torch.dtype) -> None:
    h = activations(dtype)
    both = prune_activations(h, samples=1.0, generators=seeded(1, 2))
    assert both.dtype == dtype
    assert prune_activations(h[1:], samples=1.0, generators=seeded(2))[0].equal(both[1])
    assert prune_activations(h[:0], samples=1.0, generators=[]).shape == (0, 3, 4, 5)
    flat = prune_activations(h.flatten(1), samples=1.0, generators=seeded(1, 2))
    assert flat.equal(both.flatten(1))


def network(channels: int = 3, seed: int = 0) -> VGG:
    return vgg("vgg-small", classes=4, channels=channels, seed=seed).eval()


def images(channels: int = 3, count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, channels, 33, 40, generator=torch.Generator().manual_seed(1), dtype=dtype)


@torch.no_grad()
def test_every_activation_of_the_network_is_pruned_as_by_hand() -> None:
    """Layer by layer, with the image's one generator drawn from in the order of the layers."""
    plain, x = network(), images(count=2)
    drawing = generators(x, 0, "sap")
    h = plain.normalise(x)
    for layer in plain.features:
        h = layer(h)
        if isinstance(layer, nn.ReLU):
            h = prune_activations(h, samples=2.0, generators=drawing)
    assert ActivationPruning(plain)(x).equal(plain.classifier(h.mean((2, 3))))


@torch.no_grad()
def test_with_huge_samples_it_is_the_network() -> None:
    plain, x = network(), images()
    torch.testing.assert_close(ActivationPruning(plain, samples=1e9)(x), plain(x), rtol=1e-5, atol=1e-6)
    errors = [float((ActivationPruning(plain, samples=n)(x) - plain(x)).abs().mean()) for n in (0.1, 1.0, 10.0)]
    assert all(first > second for first, second in pairwise(errors))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_each_image_has_its_own_draws(channels: int, dtype: torch.dtype) -> None:
    pruned, x = ActivationPruning(network(channels).to(dtype)), images(channels, dtype=dtype)
    logits = pruned(x)
    assert logits.dtype == dtype
    for index in range(len(x)):
        torch.testing.assert_close(pruned(x[index : index + 1])[0], logits[index], rtol=1e-4, atol=1e-5)
    assert pruned(x[:0]).shape == (0, 4)


@torch.no_grad()
def test_the_seed_decides() -> None:
    plain, x = network(), images()
    first = ActivationPruning(plain, seed=3)
    assert first(x).equal(ActivationPruning(plain, seed=3)(x))
    assert not first(x).equal(ActivationPruning(plain, seed=4)(x))
    fresh = with_seed(first, None)
    torch.manual_seed(0)
    once, again = fresh(x), fresh(x)
    assert not once.equal(again)
    torch.manual_seed(0)
    assert fresh(x).equal(once)
    assert first.settings() == {"samples": 2.0, "seed": 3}


@torch.no_grad()
def test_the_network_is_left_as_it_was_and_its_tensors_are_shared() -> None:
    plain, x = network(), images()
    before, modules = plain(x), list(plain.modules())
    pruned = ActivationPruning(plain)
    changed = pruned(x)
    assert plain(x).equal(before)
    assert [id(module) for module in plain.modules()] == [id(module) for module in modules]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())
    assert pruned.network is plain
    plain.classifier.bias.add_(1.0)  # what the network learns later, the pruned one knows
    torch.testing.assert_close(pruned(x), changed + 1.0)


@torch.no_grad()
def test_saturating_and_encoded_networks_are_pruned_too() -> None:
    x = images()
    for options in ({"activation": "saturating"}, {"encoding": "thermometer"}):
        plain = vgg("vgg-small", classes=4, **options).eval()
        assert not ActivationPruning(plain, samples=0.5)(x).equal(plain(x))
        torch.testing.assert_close(ActivationPruning(plain, samples=1e9)(x), plain(x), rtol=1e-5, atol=1e-6)


def test_it_can_be_attacked_and_leaves_no_gradients() -> None:
    plain, x = network(), images(count=2)
    with torch.no_grad():
        labels = plain(x).argmax(1)
    fresh = with_seed(ActivationPruning(plain), None)
    model = Expectation(fresh, samples=4)
    found = pgd(model, x, labels, budget=Linf(16 / 255), steps=5).images
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(plain(each), labels) for each in (x, found)]
    assert float(losses[1]) > float(losses[0]) + 0.01
    assert all(parameter.grad is None for parameter in plain.parameters())


@pytest.mark.parametrize("samples", [0.0, -1.0, math.inf, math.nan])
def test_impossible_samples_are_refused(samples: float) -> None:
    with pytest.raises(UsageError, match="samples is"):
        ActivationPruning(network(), samples=samples)
    with pytest.raises(UsageError, match="samples is"):
        prune_activations(activations(), samples=samples, generators=seeded(1, 2))


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(
        UsageError, match="the Linear has no module ReLU or SaturatedLinear to prune after; give it one"
    ):
        ActivationPruning(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="1 generators for 2 images; give one an image"):
        prune_activations(activations(), samples=2.0, generators=seeded(1))
