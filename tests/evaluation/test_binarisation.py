"""The binarisation test where the truth is known: planted points, oracles, linear scores and masked gradients."""

import math
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from layers import universal
from quasinat.attacks import L2, AttackResult, Budget, Dissimilarity, Linf, fgsm, pgd, random_noise
from quasinat.attacks.subspace import layer_of
from quasinat.data.draws import generator_for
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import Binarisation, binarisation
from quasinat.evaluation.planted_task import BinaryReadout, fitted_direction, planted_task, points_at
from quasinat.sparse_coding import Identity

SHAPE = (1, 6, 6)
LINF = Linf(8 / 255)
BUDGETS: list[Budget] = [LINF, L2(0.2), Dissimilarity(0.06)]
small = partial(binarisation, inner=24, random_points=30)
strong = partial(pgd, steps=10)


class Curved(nn.Module):
    """A smooth network of 64 features, with dropout, so that its training flag matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 64), nn.Tanh(), nn.Dropout(0.5))
        self.last = nn.Linear(64, 5)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        self.double()

    def embed(self, images: Tensor) -> Tensor:
        return self.layers(4 * images - 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.embed(images))


class Rounded(nn.Module):
    """Hard levels, whose gradient is zero."""

    def forward(self, images: Tensor) -> Tensor:
        return (255 * images).round() / 255


class Brightness(nn.Module):
    """A single feature, a mean with unequal weights (no two corners are equally bright), and logits of it."""

    def embed(self, images: Tensor) -> Tensor:
        weights = torch.arange(1, math.prod(SHAPE) + 1, dtype=images.dtype).sqrt()
        return (images.flatten(1) * weights).mean(1, keepdim=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images).repeat(1, 2)


def answering(model: nn.Module, images: Tensor, found: Tensor) -> AttackResult:
    """An attack's claim to have found `found`."""
    yes = torch.ones(len(images), dtype=torch.bool)
    return AttackResult(found, yes, torch.full((len(images),), 7))


def nothing(model: nn.Module, images: Tensor, labels: Tensor, *, budget: Budget) -> AttackResult:
    return answering(model, images, images)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return 0.1 + 0.8 * torch.rand(8, *SHAPE, generator=generator, dtype=torch.float64)


# Strong and weak attacks


@pytest.mark.parametrize("budget", [LINF, L2(0.2), Dissimilarity(0.06, "gradient")], ids=str)
def test_a_strong_attack_succeeds_and_a_random_search_does_not(budget: Budget, images: Tensor) -> None:
    result = small(Curved(), images, budget=budget, attack=strong)
    assert result.tasks.value >= 0.9
    assert result.rate.value >= 0.9
    assert result.random_rate.value <= 0.3
    assert result.rate.n == int(result.valid.sum())
    assert (budget.measure(images, result.images) <= budget.size + 1e-9).all()
    assert ((result.images >= 0) & (result.images <= 1)).all()


@pytest.mark.parametrize("budget", BUDGETS[:2], ids=str)
def test_an_attack_that_knows_nothing_fails(budget: Budget, images: Tensor) -> None:
    assert small(Curved(), images, budget=budget, attack=nothing).rate.value == 0
    assert small(Curved(), images, budget=budget, attack=random_noise).rate.value <= 0.2


def test_a_masked_gradient_is_found_out(images: Tensor) -> None:
    masked = Defended(Rounded(), Curved())
    honest = masked.with_adjoint(Identity())
    blind, seeing = (small(model, images, budget=LINF, attack=strong) for model in (masked, honest))
    assert torch.equal(blind.valid, seeing.valid)  # the same tasks: the forward passes agree
    assert torch.equal(blind.random_share, seeing.random_share)
    assert seeing.rate.value >= 0.9
    assert blind.rate.value <= 0.2
    assert (seeing.reached > blind.reached)[seeing.valid].all()


def test_a_claim_is_checked(images: Tensor) -> None:
    def outside(model: nn.Module, images: Tensor, labels: Tensor, *, budget: Budget) -> AttackResult:
        result = strong(model, images, labels, budget=budget.resized(1.1 * budget.size))
        return answering(model, images, result.images)

    result = small(Curved(), images, budget=LINF, attack=outside)
    assert result.tasks.value >= 0.9
    assert result.rate.value == 0
    assert (result.queries[result.valid] == 7).all()


# What is planted


@pytest.mark.parametrize(("budget", "boundary"), [(LINF, 1), (L2(0.2), 3), (Dissimilarity(0.06), 1)])
def test_who_knows_the_planted_point_passes_at_just_one(budget: Budget, boundary: int, images: Tensor) -> None:
    planted = [
        points_at(images[i : i + 1], budget, 1.0, boundary, generator_for(5, "binarisation", "planted", str(i)))
        for i in range(len(images))
    ]

    def oracle(model: nn.Module, images: Tensor, labels: Tensor, *, budget: Budget) -> AttackResult:
        points = next(points for points in planted if (budget.measure(images, points[:1]) <= budget.size + 1e-9).all())
        weakest = model(points).diff(dim=1)[:, 0].argmin()
        return answering(model, images, points[weakest : weakest + 1])

    result = small(Curved(), images, budget=budget, attack=oracle, boundary=boundary, seed=5)
    assert result.tasks.value >= 0.9
    assert result.success[result.valid].all()
    torch.testing.assert_close(result.reached[result.valid], torch.ones(int(result.valid.sum())).double())


@pytest.mark.parametrize("closeness", [0.01, 0.5, 0.999])
def test_the_threshold_lies_between_the_points(closeness: float, images: Tensor, generator: torch.Generator) -> None:
    x, model = images[:1], Curved().eval()
    near = torch.cat([x, points_at(x, LINF, 0.95, 29, generator)])
    planted = points_at(x, LINF, 1.0, 2, generator)
    task = planted_task(model, near, planted, closeness=closeness)
    with torch.no_grad():
        low, high = task.model(near), task.model(planted)
    assert task.separable
    assert (low.argmax(1) == 0).all()
    assert (high.argmax(1) == 1).all()
    inside, outside = low[:, 1].max().item(), high[:, 1].min().item()
    assert outside - inside == pytest.approx(task.gap)
    assert -inside / task.gap == pytest.approx(closeness)
    assert torch.cat([low, high]).abs().max() == pytest.approx(0.5)


def test_of_one_feature_there_is_a_task_just_where_the_planted_one_is_extreme(images: Tensor) -> None:
    model, many = Brightness(), images.repeat(2, 1, 1, 1)
    result = binarisation(model, many, budget=LINF, attack=strong, inner=4, inner_share=0.6, random_points=2)
    for i in range(len(many)):
        x = many[i : i + 1]
        inner = points_at(x, LINF, 0.6, 3, generator_for(0, "binarisation", "inner", str(i)))
        low = model.embed(torch.cat([x, inner]))
        high = model.embed(points_at(x, LINF, 1.0, 1, generator_for(0, "binarisation", "planted", str(i)))).item()
        assert result.valid[i].item() is (high > low.max().item() or high < low.min().item())
    assert 0 < result.tasks.value < 1
    assert result.rate.value == 1  # monotone in every pixel: sign steps reach the far corner


def test_on_a_linear_score_the_attack_reaches_what_the_dual_norm_says(images: Tensor) -> None:
    seen: list[tuple[float, float]] = []

    def watching(model: nn.Module, images: Tensor, labels: Tensor, *, budget: Budget) -> AttackResult:
        leaf = images.clone().requires_grad_(True)
        score = model(leaf)[0, 1]
        (gradient,) = torch.autograd.grad(score, leaf)
        result = strong(model, images, labels, budget=budget)
        best = score.item() + budget.size * gradient.abs().sum().item()
        seen.append((best, model(result.images)[0, 1].item()))
        return result

    result = binarisation(
        Curved(), images, budget=LINF, attack=watching, features=nn.Flatten(), inner=20, random_points=20
    )
    assert len(seen) == int(result.valid.sum()) >= 7
    for best, found in seen:
        assert found == pytest.approx(best, rel=1e-6)
    assert result.rate.value == 1


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_points_lie_at_their_share_of_the_budget(budget: Budget, generator: torch.Generator) -> None:
    grey = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    black = torch.zeros_like(grey)
    for share in (0.5, 1.0):
        points = points_at(grey, budget, share, 9, generator)
        moved = budget.measure(grey.expand_as(points), points)
        torch.testing.assert_close(moved, torch.full((9,), share * budget.size, dtype=torch.float64))
        assert len({tuple(point.flatten().tolist()) for point in points}) == 9
        if isinstance(budget, Linf):
            torch.testing.assert_close((points - grey).abs(), torch.full_like(points, share * budget.size))
        edge = points_at(black, budget, share, 9, generator)
        assert ((edge >= 0) & (edge <= 1)).all()
    assert len(points_at(grey, budget, 1.0, 0, generator)) == 0


def test_without_a_difference_there_is_no_task(images: Tensor) -> None:
    blind = small(Curved(), images, budget=LINF, attack=strong, features=lambda x: torch.ones(len(x), 70).double())
    still = small(Curved(), images, budget=Linf(0.0), attack=strong)
    black = small(Curved(), 0 * images, budget=Dissimilarity(0.1), attack=strong)
    for result in (blind, still, black):
        assert not (result.valid | result.success | result.random_success).any()
        assert result.rate.n == result.random_rate.n == 0
        assert result.reached.isnan().all()
    assert torch.equal(still.images, images)


def test_a_feature_that_varies_by_its_rounding_alone_is_left_out(generator: torch.Generator) -> None:
    points = torch.randn(20, 3, generator=generator)
    points[:, 1] = 1.0
    points[::2, 1] += 2e-7
    _, direction = fitted_direction(points[:15], points[15:])
    assert direction[1] == 0
    assert (direction[[0, 2]] != 0).all()


def test_the_readout_is_that_of_another_package(generator: torch.Generator) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    low = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    high = torch.randn(9, 4, generator=generator, dtype=torch.float64) + torch.tensor([0.8, -0.4, 0, 0.2]).double()
    centre, direction = fitted_direction(low, high)
    points = torch.cat([low, high])
    torch.testing.assert_close(centre, points.mean(0))
    spread = points.std(0, correction=0)
    reference = linear_model.LogisticRegression(C=1 / (49 * 1e-6), class_weight="balanced", tol=1e-10, max_iter=5000)
    reference.fit(((points - centre) / spread).numpy(), [0] * 40 + [1] * 9)
    expected = torch.from_numpy(reference.coef_[0]) / spread
    torch.testing.assert_close(direction, expected, rtol=1e-4, atol=1e-5)


# What an attack is shown


def test_an_attack_on_the_layer_still_finds_the_layer(generator: torch.Generator) -> None:
    model = Defended(universal(1), Curved().float()).with_adjoint(Identity())
    shown: list[nn.Module] = []

    def aimed(model: nn.Module, images: Tensor, labels: Tensor, *, budget: Budget) -> AttackResult:
        assert layer_of(model, "test") is not None
        assert torch.equal(labels, torch.zeros(1, dtype=torch.int64))
        assert not model.training
        shown.append(model)
        return fgsm(model, images, labels, budget=budget)

    result = small(model, torch.rand(2, *SHAPE, generator=generator), budget=LINF, attack=aimed)
    assert len(shown) == int(result.valid.sum()) > 0
    assert all(isinstance(task, Defended) and isinstance(task.classifier, BinaryReadout) for task in shown)


def test_the_model_is_left_as_it_was(images: Tensor) -> None:
    model = Curved().train()
    model.last.eval()
    with torch.no_grad():
        small(model, images[:2], budget=LINF, attack=strong)
    assert model.training
    assert model.layers.training
    assert not model.last.training
    assert all(parameter.grad is None for parameter in model.parameters())


# Draws


def same(first: Binarisation, second: Binarisation) -> bool:
    pairs = [(getattr(first, name), getattr(second, name)) for name in vars(first)]
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def test_a_seed_repeats_and_another_differs(images: Tensor) -> None:
    once, again, other = (small(Curved(), images[:3], budget=LINF, attack=strong, seed=seed) for seed in (1, 1, 2))
    assert same(once, again)
    assert not torch.equal(once.reached, other.reached)


def test_an_image_is_tested_as_if_alone(images: Tensor) -> None:
    done: list[tuple[int, int]] = []
    together = small(
        Curved(), images[:4], budget=L2(0.2), attack=strong, batch_size=7, on_image=lambda i, n: done.append((i, n))
    )
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for i in range(4):
        alone = small(Curved(), images[i : i + 1], budget=L2(0.2), attack=strong, first=i)
        for name in vars(alone):
            torch.testing.assert_close(getattr(together, name)[i : i + 1], getattr(alone, name), equal_nan=True)


def test_an_empty_batch_has_no_outcome(images: Tensor) -> None:
    result = binarisation(Curved(), images[:0], budget=LINF, attack=strong)
    assert len(result.valid) == len(result.images) == 0
    assert result.tasks.n == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"inner": 0}, "inner is 0"),
        ({"boundary": 0}, "boundary is 0"),
        ({"random_points": 0}, "random_points is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"inner_share": 1.0}, "inner_share is 1.0"),
        ({"inner_share": -0.1}, "inner_share is -0.1"),
        ({"closeness": 1.0}, "closeness is 1.0"),
        ({"closeness": math.nan}, "closeness is nan"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], named: str, images: Tensor) -> None:
    with pytest.raises(UsageError, match=named):
        binarisation(Curved(), images, budget=LINF, attack=strong, **options)  # type: ignore[arg-type]


def test_features_that_are_not_finite_are_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match="not finite"):
        small(Curved(), images, budget=LINF, attack=strong, features=lambda x: x.flatten(1) / 0)
