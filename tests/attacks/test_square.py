import math

import pytest
import torch
from torch import Tensor, nn

from quasinat.attacks import L2, Budget, Dissimilarity, Linf
from quasinat.attacks.square import HALVINGS, _hill, _pattern, _remaining, _side, square
from quasinat.errors import UsageError

from .conftest import Constant, Linear, Perceptron, decisions


def slope(model: Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """Of two classes: the gap between the label's logit and the other's, and its gradient, one row per image."""
    with torch.no_grad():
        logits = model(images)
        labels = logits.argmax(1)
        weights = model.weight[labels] - model.weight[1 - labels]
        return logits.max(1).values - logits.min(1).values, weights


@pytest.mark.parametrize("place", ["below", "between", "above"])
def test_on_a_linear_model_it_succeeds_exactly_beyond_the_closed_form_linf_distance(place: str, images: Tensor) -> None:
    model = Linear(2)
    gaps, weights = slope(model, images)
    distances = gaps / weights.abs().sum(1)
    ordered = distances.sort().values
    middle = int((ordered[1:] / ordered[:-1])[1:-2].argmax()) + 1
    radius = {
        "below": 0.99 * ordered[0],
        "between": (ordered[middle] * ordered[middle + 1]).sqrt(),
        "above": 1.01 * ordered[-1],
    }[place].item()
    assert ((distances / radius - 1).abs() > 0.005).all()
    result = square(model, images, decisions(model, images), budget=Linf(radius), queries=400)
    assert torch.equal(result.success, distances < radius)


def test_a_failed_linf_image_is_at_the_optimum_of_a_linear_model(images: Tensor) -> None:
    model = Linear(2)
    gaps, weights = slope(model, images)
    radius = 0.5 * (gaps / weights.abs().sum(1)).min().item()
    result = square(model, images, decisions(model, images), budget=Linf(radius), queries=1000)
    assert not result.success.any()
    assert torch.allclose(result.images, images - radius * weights.sign().view_as(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("relative", [False, True])
def test_on_a_linear_model_the_l2_version_is_bounded_by_the_distance_and_near_it(
    relative: bool, images: Tensor
) -> None:
    model = Linear(2)
    distances = model.distances(images)
    if relative:  # each image at its own radius
        distances = distances / torch.linalg.vector_norm(images.flatten(1), dim=1)
    kind = Dissimilarity if relative else L2
    labels = decisions(model, images)
    below, above = kind(0.99 * distances.min().item()), kind(1.5 * distances.max().item())
    assert square(model, images, labels, budget=above, queries=300).success.all()
    failed = square(model, images, labels, budget=below, queries=300)
    assert not failed.success.any()
    # Algorithm 3 keeps the whole budget in use while no pixel meets the box.
    assert torch.allclose(below.measure(images, failed.images), torch.tensor(below.size, dtype=torch.float64))


def test_images_of_any_size_and_number_of_channels(generator: torch.Generator) -> None:
    for shape in [(3, 5, 9), (1, 1, 1), (2, 3, 11), (3, 16, 12)]:
        images = 0.4 + 0.2 * torch.rand(3, *shape, generator=generator, dtype=torch.float64)
        weight = torch.randn(math.prod(shape), 2, generator=generator, dtype=torch.float64)
        model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 2, bias=False, dtype=torch.float64))
        with torch.no_grad():
            model[1].weight.copy_(weight.T)
        labels = decisions(model, images)
        for budget in (Linf(0.3), L2(0.3 * math.prod(shape) ** 0.5)):
            result = square(model, images, labels, budget=budget, queries=40)
            assert (budget.measure(images, result.images) <= budget.size * (1 + 1e-9)).all()
            assert torch.equal(result.success, decisions(model, result.images) != labels)
            assert (result.images != images).any()


def test_the_hill_is_the_sum_of_the_publication() -> None:
    for height, width in [(1, 1), (1, 3), (2, 5), (3, 5), (3, 7), (4, 7)]:
        n = max(height, width) // 2
        hill = _hill(height, width)
        for r in range(1, height + 1):  # numbered from 1, as there
            for s in range(1, width + 1):
                m = n - max(abs(r - height // 2 - 1), abs(s - width // 2 - 1))
                expected = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
                assert hill[r - 1, s - 1].item() == pytest.approx(expected, rel=1e-12)


def test_the_pattern_is_a_hill_beside_a_dip_of_length_one_and_both_turns_occur(generator: torch.Generator) -> None:
    patterns = [_pattern(5, generator) for _ in range(20)]
    assert all(torch.linalg.vector_norm(pattern).item() == pytest.approx(1) for pattern in patterns)
    lying = [bool((pattern[:2] > 0).all() and (pattern[2:] < 0).all()) for pattern in patterns]
    upright = [bool((pattern[:, :2] > 0).all() and (pattern[:, 2:] < 0).all()) for pattern in patterns]
    assert [a != b for a, b in zip(lying, upright, strict=True)] == [True] * 20
    assert any(lying)
    assert any(upright)


def test_the_share_halves_where_the_publication_says_rescaled() -> None:
    for steps in (10_000, 1_000):
        shares = [_remaining(step, steps) for step in range(1, steps + 1)]
        drops = [step + 1 for step in range(1, steps) if shares[step] < shares[step - 1]]
        assert drops == sorted({max(math.ceil(mark * steps / 10_000), 1) for mark in HALVINGS} - {1})
        assert shares[-1] == 0.5**8


def test_the_side_covers_the_share() -> None:
    assert [_side(share, 32, 32, odd=False) for share in (0.8, 0.1, 0.8 / 256)] == [29, 10, 2]
    assert [_side(share, 32, 32, odd=True) for share in (0.8, 0.1, 0.8 / 256)] == [29, 11, 3]
    assert _side(1.0, 4, 9, odd=False) == 4
    assert _side(1e-6, 32, 32, odd=False) == 1


@pytest.mark.parametrize("budget", [Linf(0.02), L2(0.15)], ids=str)
def test_queries_are_what_the_model_saw_without_a_gradient(budget: Budget, images: Tensor, labels: Tensor) -> None:
    model, seen = Perceptron(), 0

    def count(_: object, inputs: tuple[Tensor], __: object) -> None:
        nonlocal seen
        assert not torch.is_grad_enabled()
        seen += len(inputs[0])

    model.register_forward_hook(count)
    result = square(model, images, labels, budget=budget, queries=50)
    assert seen == int(result.queries.sum())
    assert result.queries[-1] == 2  # wrong already: one look and the re-check
    assert torch.equal(result.images[-1], images[-1])
    failed = ~result.success
    assert 0 < failed.sum() < 6  # the budget is one at which some fall and some stand
    assert (result.queries[failed] == 51).all()
    assert (result.queries[~failed] <= 51).all()


def test_a_model_without_gradients_is_searched(images: Tensor) -> None:
    class Threshold(nn.Module):
        """Counts the bright pixels: no gradient anywhere."""

        def forward(self, images: Tensor) -> Tensor:
            bright = (images > 0.5).flatten(1).double().sum(1)
            return torch.stack([bright, bright.new_full(bright.shape, 30.0)], 1)

    labels = decisions(Threshold(), images)
    assert square(Threshold(), images, labels, budget=Linf(0.2), queries=100).success.all()


@pytest.mark.parametrize("budget", [Linf(0.3), L2(1.5)], ids=str)
def test_targets_are_reached(budget: Budget, perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    targets = (decisions(perceptron, images) + 1) % 5
    result = square(perceptron, images, labels, budget=budget, targets=targets, queries=300)
    assert torch.equal(result.success, decisions(perceptron, result.images) == targets)
    assert result.success.all()


def test_a_seed_repeats_and_another_differs(perceptron: Perceptron, images: Tensor, labels: Tensor) -> None:
    for budget in (Linf(0.03), L2(0.2)):
        first, again, other = (
            square(perceptron, images, labels, budget=budget, queries=10, seed=seed).images for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_progress_counts_the_proposals(images: Tensor) -> None:
    seen: list[tuple[int, int]] = []
    square(
        Constant([1.0, 0.0]),
        images,
        torch.zeros(7, dtype=torch.int64),
        budget=Linf(0.1),
        queries=5,
        on_step=lambda done, steps: seen.append((done, steps)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"queries": 1}, "queries is 1"),
        ({"share": 0.0}, "share is 0"),
        ({"share": 1.5}, "share is 1.5"),
        ({"loss": "margins"}, "did you mean 'margin'"),
    ],
)
def test_senseless_options_are_refused(options: dict, pattern: str, images: Tensor, labels: Tensor) -> None:
    with pytest.raises(UsageError, match=pattern):
        square(Perceptron(), images, labels, budget=Linf(0.1), **options)


@pytest.mark.parametrize(("norm", "budget"), [("Linf", Linf(0.16)), ("L2", L2(3.0))])
def test_it_breaks_about_as_many_images_as_the_authors_code(
    norm: str, budget: Budget, generator: torch.Generator
) -> None:
    peer = pytest.importorskip("pyautoattack.square")

    class AsPublished(peer.SquareAttack):
        """Their code halves once more, at 500, and leaves the last row and column alone; the publication does not."""

        def p_selection(self, it: int) -> float:
            return self.p_init * _remaining(it, self.n_queries)

        def random_int(self, low: int = 0, high: int = 1, shape: tuple[int, ...] = (1,)) -> Tensor:
            return torch.randint(low, high + 1, shape)

    layers = nn.Conv2d(3, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 5 * 5, 5)
    model = nn.Sequential(*layers).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    images = 0.1 + 0.8 * torch.rand(24, 3, 15, 15, generator=generator)
    labels = decisions(model, images)
    theirs = AsPublished(model, norm=norm, n_queries=100, eps=budget.size)
    theirs.init_hyperparam(images)
    ours, broken = 0.0, 0.0
    for seed in range(2):
        ours += square(model, images, labels, budget=budget, queries=100, seed=seed).success.sum().item() / 2
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _, found = theirs.attack_single_run(images, labels)
        broken += (decisions(model, found) != labels).sum().item() / 2
    assert 4 <= broken <= 20  # the budget separates the images
    assert abs(ours - broken) <= 4
