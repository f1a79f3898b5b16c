"""Dictionary learning: the objective falls, held-out images are coded better, a planted dictionary is found."""

import pytest
import torch
from torch import Tensor

from quasinat.data import photographs
from quasinat.errors import InputError
from quasinat.sparse_coding import (
    ADMM,
    Constraint,
    Dictionary,
    Solution,
    SparseCodingProblem,
    convolve,
    learn_dictionary,
    learning,
    project_unit_norm,
    solve,
    tikhonov_split,
)

SETTINGS = {"filters": 12, "size": 6, "sparsity": 0.1, "iterations": 5}


@pytest.fixture(scope="module")
def patches() -> tuple[Tensor, Tensor]:
    """High-pass training and test patches of photographs; the two share no pixel."""
    dataset = photographs(train_per_class=2, test_per_class=1)
    return tikhonov_split(dataset.train_images)[1], tikhonov_split(dataset.test_images)[1]


@pytest.fixture(scope="module")
def learned(patches: tuple[Tensor, Tensor]) -> Dictionary:
    return learn_dictionary(patches[0], **SETTINGS)


def mean_objective(images: Tensor, filters: Tensor) -> float:
    return float(solve(SparseCodingProblem(images, filters, 0.1)).objective.mean())


def test_the_curve_falls(learned: Dictionary) -> None:
    curve = torch.tensor(learned.curve)
    assert len(curve) == 6
    assert (curve[1:] <= curve[:-1] * 1.001).all()
    assert curve[-1] < 0.93 * curve[0]
    assert learned.images == 20


def test_held_out_images_are_coded_better_than_by_chance(
    learned: Dictionary, patches: tuple[Tensor, Tensor], generator: torch.Generator
) -> None:
    random = project_unit_norm(torch.randn(learned.filters.shape, generator=generator), "joint")
    assert mean_objective(patches[1], learned.filters) < 0.8 * mean_objective(patches[1], random)
    untrained = learn_dictionary(patches[0], **{**SETTINGS, "iterations": 0})
    assert mean_objective(patches[1], learned.filters) < 0.97 * mean_objective(patches[1], untrained.filters)


def test_the_seed_decides(learned: Dictionary, patches: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = learn_dictionary(patches[0], **SETTINGS)
    assert torch.random.get_rng_state().equal(before)
    assert again.filters.equal(learned.filters)
    assert again.curve == learned.curve
    assert not learn_dictionary(patches[0], **{**SETTINGS, "iterations": 1}, seed=1).filters.allclose(learned.filters)


@pytest.mark.parametrize("constraint", ["joint", "per-channel"])
def test_every_iteration_is_reported_and_the_constraint_held(
    constraint: Constraint, generator: torch.Generator
) -> None:
    images = torch.rand(4, 3, 14, 17, generator=generator, dtype=torch.float64) - 0.5
    seen: list[tuple[int, float]] = []
    dictionary = learn_dictionary(
        images,
        filters=5,
        size=4,
        sparsity=0.2,
        iterations=2,
        constraint=constraint,
        on_iteration=lambda iteration, objective: seen.append((iteration, objective)),
    )
    assert seen == list(enumerate(dictionary.curve))
    assert dictionary.filters.shape == (5, 3, 4, 4)
    assert dictionary.filters.dtype == torch.float64
    assert dictionary.constraint == constraint
    norms = dictionary.filters.square().sum((2, 3) if constraint == "per-channel" else (1, 2, 3)).sqrt()
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_codes_start_from_where_they_stood(
    patches: tuple[Tensor, Tensor], learned: Dictionary, monkeypatch: pytest.MonkeyPatch
) -> None:
    solutions: list[Solution] = []

    def counted(*arguments: object, **named: object) -> Solution:
        solutions.append(solve(*arguments, **named))
        return solutions[-1]

    monkeypatch.setattr(learning, "solve", counted)
    learn_dictionary(patches[0][:5], **SETTINGS, start=learned.filters)
    assert len(solutions) == 6
    assert float(solutions[-1].steps.double().mean()) < 0.7 * float(solutions[0].steps.double().mean())


def test_a_planted_dictionary_is_found_from_nearby(generator: torch.Generator) -> None:
    truth = project_unit_norm(torch.randn(4, 1, 5, 5, generator=generator), "joint")
    codes = torch.randn(16, 4, 20, 20, generator=generator)
    images = convolve(truth, codes * (torch.rand(codes.shape, generator=generator) < 0.01))
    start = project_unit_norm(truth + 0.15 * torch.randn(truth.shape, generator=generator), "joint")
    solver = ADMM(tolerance=1e-3, max_steps=500)
    found = learn_dictionary(
        images, filters=4, size=5, sparsity=0.02, iterations=15, start=start, solver=solver
    ).filters
    before, after = ((other * truth).sum((1, 2, 3)) for other in (start, found))
    assert (before < 0.9).all()
    assert (after > 0.97).all()
    assert (1 - after < (1 - before) / 8).all()


def test_what_cannot_be_learned_from_is_refused() -> None:
    images = torch.rand(2, 1, 12, 12)
    with pytest.raises(InputError, match=r"flat: there is nothing to learn .* use textured"):
        learn_dictionary(torch.zeros(2, 1, 12, 12), filters=3, size=4)
    with pytest.raises(InputError, match=r"12 x 12 pixels are smaller than the filters \(13 x 13\); use"):
        learn_dictionary(images, filters=3, size=13)
    with pytest.raises(InputError, match="no images to learn a dictionary from; give at least one"):
        learn_dictionary(images[:0], filters=3, size=4)
    images = torch.rand(120, 1, 12, 12)
    images[110, 0, 3, 3] = torch.nan
    with pytest.raises(InputError, match="image 110 holds NaN or infinity; leave it out"):
        learn_dictionary(images, filters=3, size=4)
