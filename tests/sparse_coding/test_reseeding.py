"""Filters that nobody uses are replaced and counted; learning never does so silently."""

import pytest
import torch

from quasinat.sparse_coding import (
    Batch,
    Consensus,
    Learner,
    Online,
    convolve,
    learn_dictionary,
    project_filters,
    statistics,
)
from quasinat.sparse_coding.dictionary_problem import DictionaryProblem
from quasinat.sparse_coding.reseeding import reseed, usage, without

from .conftest import problem_of


@pytest.mark.parametrize("learner", [Batch(), Online(batch_size=4), Consensus()], ids=["batch", "online", "consensus"])
def test_a_dead_filter_comes_back_and_is_counted(learner: Learner, generator: torch.Generator) -> None:
    """The start holds a checkerboard that none of the smooth images needs, and lacks a filter that they do need."""
    truth = torch.nn.functional.interpolate(torch.randn(3, 1, 3, 3, generator=generator), 6, mode="bilinear")
    truth = project_filters(truth, "joint")
    codes = torch.randn(8, 3, 24, 24, generator=generator)
    images = convolve(truth, codes * (torch.rand(codes.shape, generator=generator) < 0.01))
    checkers = torch.tensor([1.0, -1.0]).repeat(18).view(6, 6).clone()
    checkers[1::2] *= -1
    start = project_filters(torch.stack([truth[0], truth[1], checkers[None]]), "joint")
    dictionary = learn_dictionary(
        images, start=start, sparsity=0.05, passes=6, tolerance=0.0, learner=learner, held_out=images
    )
    assert dictionary.reseeded >= 1
    correlations = (dictionary.filters[2, 0].flatten() @ checkers.flatten() / 6).abs()
    assert correlations < 0.5
    assert dictionary.held_out[-1] < 0.9 * dictionary.held_out[0]


def test_only_the_dead_are_replaced_by_what_is_explained_worst(generator: torch.Generator) -> None:
    filters = project_filters(torch.randn(4, 2, 3, 3, generator=generator), "joint")
    residual = torch.zeros(2, 2, 9, 9)
    residual[1, :, 3:6, 6:9] = 5 * filters[0]
    problem = DictionaryProblem(residual, 0.1)
    replaced, dead = reseed(filters, torch.tensor([3.0, 0.0, 2.0, 1.0]), residual, problem)
    assert dead.tolist() == [1]
    torch.testing.assert_close(replaced[1], filters[0])
    kept = [0, 2, 3]
    assert replaced[kept].equal(filters[kept])


@pytest.mark.parametrize("energy", [[1.0, 1.0, 0.5, 2.0], [0.0, 0.0, 0.0, 0.0]])
def test_where_all_or_none_are_used_nothing_changes(energy: list[float], generator: torch.Generator) -> None:
    filters = torch.randn(4, 1, 3, 3, generator=generator)
    images = torch.randn(2, 1, 9, 9, generator=generator)
    replaced, dead = reseed(filters, torch.tensor(energy), images, DictionaryProblem(images, 0.1))
    assert replaced.equal(filters)
    assert len(dead) == 0


def test_without_a_residual_there_is_nothing_to_replace_by(generator: torch.Generator) -> None:
    filters = torch.randn(2, 1, 3, 3, generator=generator)
    images = torch.zeros(2, 1, 9, 9)
    replaced, dead = reseed(filters, torch.tensor([1.0, 0.0]), images, DictionaryProblem(images, 0.1))
    assert replaced.equal(filters)
    assert len(dead) == 0


def test_usage_is_the_energy_of_the_maps_and_forgetting_a_filter_is_coding_without_it() -> None:
    problem = problem_of(channels=2)
    codes = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = statistics(codes, problem.images, 5)
    torch.testing.assert_close(usage(seen), codes.square().sum((0, 2, 3)))
    codes[:, [1, 4]] = 0
    expected, found = statistics(codes, problem.images, 5), without(seen, torch.tensor([1, 4]))
    torch.testing.assert_close(found.correlations, expected.correlations)
    torch.testing.assert_close(found.cross, expected.cross)
