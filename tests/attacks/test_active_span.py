"""The attack made of the image's own atoms: its span by dense least squares, and that the layer passes it through."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layers import images_of, stratified, universal
from quasinat.attacks import L2, Budget, Dissimilarity, Linf, random_noise
from quasinat.attacks.active_span import active_span
from quasinat.defended import Defended, EightBit
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import CoordinateDescent, Identity, Solution, SparseCodingProblem, solve
from quasinat.strata import Split, split_bands

from .conftest import decisions

BUDGETS: list[Budget] = [Linf(0.02), L2(0.3), Dissimilarity(0.02), Dissimilarity(0.02, "gradient")]
SPARSITIES: dict[Split, float] = {"none": 0.3, "mid-grey": 0.1, "tikhonov": 0.05}  # some codes, but not on every pixel
SIDE = 12
TINY = 1e-7


class Pixels(nn.Module):
    """Fixed random linear logits of the pixels."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(3 * SIDE**2, classes, generator=generator) / 10)

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight


def exact(make: Any, split: Split) -> SparseTransformationLayer:
    """A layer in float64 that solves to the last digits."""
    solver = CoordinateDescent(tolerance=1e-13, max_steps=3000)
    layer: SparseTransformationLayer = make(split=split, sparsity=SPARSITIES[split], solver=solver)
    return layer.double()


def behind(layer: SparseTransformationLayer, classifier: nn.Module | None = None) -> Defended:
    model = (classifier or Pixels()).to(layer.filters.dtype)
    return Defended(layer, model).eval().with_adjoint(Identity())


def soft(count: int) -> Tensor:
    """Photographs with some grain, without black or white."""
    grain = torch.rand(9, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))[:count] - 0.5
    return images_of(3, count, SIDE, SIDE) * 0.6 + 0.2 + 0.2 * grain


def active_atoms(layer: SparseTransformationLayer, images: Tensor) -> list[Tensor]:
    """Of each image the matrix whose columns are its active atoms, shifted one by one."""
    matrices = []
    for image, solution, stratum in zip(images, coded(layer, images), layer.stratum(images).tolist(), strict=True):
        filters = layer.filters[stratum]
        size, columns = filters.shape[-1], []
        places = solution.codes[0].nonzero()
        for k, row, column in places.tolist():
            atom = torch.zeros_like(image)
            atom[:, :size, :size] = filters[k]
            columns.append(atom.roll((row, column), (1, 2)).flatten())
        matrix = torch.stack(columns, 1)
        shown = matrix @ solution.codes[0][tuple(places.T)]  # as the layer places them
        torch.testing.assert_close(shown.view_as(image), solution.reconstruction[0], rtol=0, atol=1e-5)
        matrices.append(matrix)
    return matrices


def coded(layer: SparseTransformationLayer, images: Tensor) -> list[Solution]:
    """The sparse coding of each image."""
    band, strata = split_bands(images, layer.split)[1], layer.stratum(images).tolist()
    return [
        solve(SparseCodingProblem(band[i : i + 1], layer.filters[m], layer.sparsity), layer.solver)
        for i, m in enumerate(strata)
    ]


def keeps_its_signs(layer: SparseTransformationLayer, images: Tensor, moved: Tensor) -> bool:
    """Whether the support of the codes and their signs are the same of both."""
    pairs = zip(coded(layer, images), coded(layer, moved), strict=True)
    return all(first.codes.sign().equal(second.codes.sign()) for first, second in pairs)


def projected(matrix: Tensor, vector: Tensor) -> Tensor:
    """On the columns' span, by a dense decomposition."""
    left, values, _ = torch.linalg.svd(matrix.double(), full_matrices=False)
    basis = left[:, values > 1e-9 * values[0]]
    return (basis @ (basis.T @ vector.double().flatten())).view_as(vector)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("split", ["tikhonov", "none"])
def test_the_perturbation_is_made_of_the_active_atoms_of_the_images_own_stratum(split: Split, budget: Budget) -> None:
    layer, images = stratified(split=split, sparsity=SPARSITIES[split]), soft(3)
    assert len(set(layer.stratum(images).tolist())) > 1
    model = behind(layer)
    labels = decisions(model, images)
    result = active_span(model, images, labels, budget=budget, steps=3, tolerance=1e-6)
    moved = result.images - images
    for i, matrix in enumerate(active_atoms(layer, images)):
        length = float(moved[i].norm())
        assert length > 0
        assert float((moved[i] - projected(matrix, moved[i])).norm()) < 1e-4 * length
        other = torch.randn(moved[i].shape, generator=torch.Generator().manual_seed(i))
        assert float((other - projected(matrix, other)).norm()) > 0.3 * float(other.norm())  # no empty claim
    assert (result.stats["outside"] < 1e-6).all()
    assert (budget.measure(images, result.images) <= budget.size * (1 + 1e-4)).all()
    assert result.success.equal(decisions(model, result.images) != labels)


def test_a_linear_model_is_climbed_along_the_projection_of_its_slope() -> None:
    layer, images = exact(stratified, "none"), soft(3).double()
    model = behind(layer, Pixels(2))
    labels = decisions(model, images)
    weight = model.classifier.weight.detach()
    result = active_span(model, images, labels, budget=L2(TINY), steps=4, tolerance=1e-10)
    assert not result.success.any()
    for i, matrix in enumerate(active_atoms(layer, images)):
        slope = weight[:, 1 - labels[i]] - weight[:, labels[i]]
        direction = projected(matrix, slope.view_as(images[i]))
        expected = TINY * direction / direction.norm()
        torch.testing.assert_close(result.images[i] - images[i], expected, rtol=0, atol=1e-5 * TINY)


@pytest.mark.parametrize("split", ["none", "mid-grey"])
@pytest.mark.parametrize("make", [universal, stratified])
def test_the_layer_passes_it_through(make: Any, split: Split) -> None:
    layer, images = exact(make, split), soft(3).double()
    model = behind(layer)
    labels = decisions(model, images)
    budget = L2(TINY)
    result = active_span(model, images, labels, budget=budget, steps=3, tolerance=1e-10)
    before, after = layer(images), layer(result.images)
    inside = (before > 0) & (before < 1)
    assert inside.double().mean() > 0.9
    moved = result.images - images
    assert (budget.measure(images, result.images) > 0.99 * TINY).all()
    assert keeps_its_signs(layer, images, result.images)
    torch.testing.assert_close((after - before)[inside], moved[inside], rtol=0, atol=1e-4 * TINY)
    noise = random_noise(model, images, labels, budget=budget).images
    assert ((layer(noise) - before).flatten(1).norm(dim=1) < 0.95 * TINY).all()  # of another something is lost


def test_behind_the_split_it_passes_but_for_what_of_its_low_pass_part_leaves_the_span() -> None:
    layer, images = exact(stratified, "tikhonov"), soft(3).double()
    model = behind(layer)
    result = active_span(model, images, decisions(model, images), budget=L2(TINY), steps=3, tolerance=1e-10)
    assert keeps_its_signs(layer, images, result.images)
    moved = result.images - images
    low = split_bands(moved, "tikhonov")[0]
    before, after = layer(images), layer(result.images)
    for i, matrix in enumerate(active_atoms(layer, images)):
        # T(x + d) - T(x) = low(d) + P high(d), and P d = d.
        expected = moved[i] + low[i] - projected(matrix, low[i])
        inside = (before[i] > 0) & (before[i] < 1)
        torch.testing.assert_close((after[i] - before[i])[inside], expected[inside], rtol=0, atol=1e-4 * TINY)
        assert float((expected - moved[i]).norm()) < 0.5 * float(moved[i].norm())


def test_each_image_stops_at_its_first_success_and_on_its_own() -> None:
    layer, images = stratified(), soft(4)
    model = behind(layer)
    labels = decisions(model, images)
    labels[1] = (labels[1] + 1) % 4
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"budget": L2(0.3), "steps": 4, "loss": "margin"}
    result = active_span(model, images, labels, on_step=lambda done, of: seen.append((done, of)), **options)
    assert result.images[1].equal(images[1])
    assert (bool(result.success[1]), int(result.queries[1])) == (True, 3)
    assert result.success.any()
    assert (result.queries[~result.success] == 2 * 4 + 2).all()
    assert (result.queries[result.success] <= 2 * 4 + 2).all()
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    for i in range(4):
        alone = active_span(model, images[i : i + 1], labels[i : i + 1], **options)
        torch.testing.assert_close(alone.images[0], result.images[i], rtol=0, atol=1e-4)
        assert (bool(alone.success), int(alone.queries)) == (bool(result.success[i]), int(result.queries[i]))


def test_without_active_atoms_or_budget_nothing_moves_and_an_empty_batch_serves() -> None:
    images = soft(2)
    for layer, budget in ((universal(sparsity=100.0), Linf(0.1)), (stratified(), Linf(0.0))):
        model = behind(layer)
        labels = decisions(model, images)
        result = active_span(model, images, labels, budget=budget, steps=2)
        assert result.images.equal(images)
        assert result.stats["outside"].tolist() == [0, 0]
        assert not result.success.any()
        assert len(active_span(model, images[:0], labels[:0], budget=budget, steps=2).images) == 0


def test_what_it_cannot_be_aimed_at_is_refused() -> None:
    images, labels = soft(1), torch.zeros(1, dtype=torch.int64)

    def refused(pattern: str, model: Any = None, **options: Any) -> None:
        with pytest.raises(UsageError, match=pattern):
            active_span(model or behind(universal()), images, labels, budget=L2(0.1), **options)

    refused("active-span attack is aimed at a Sparse Transformation Layer", Defended(EightBit(), Pixels()))
    refused("no gradient is named", Defended(universal(), Pixels()).eval())
    refused("steps is 0", steps=0)
    refused("unknown loss 'dlt'; did you mean 'dlr'", loss="dlt")
    for tolerance in (-1.0, math.nan, math.inf):
        refused("tolerance is .*; give a finite number above 0", tolerance=tolerance)
