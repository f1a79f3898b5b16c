"""The vote of the nearest latents against a loop in NumPy."""

import numpy as np
import pytest
import torch

from quasinat.strata.neighbours import index_of, nearest_in, vote


def voted_by_loop(
    latents: np.ndarray, training: np.ndarray, labels: np.ndarray, neighbours: int
) -> tuple[list[int], list[float]]:
    """The winner of each vote, among the tied the one whose member is nearest; and (first - second) / k."""
    winners, margins = [], []
    for latent in latents:
        order = np.argsort(((training - latent) ** 2).sum(1), kind="stable")[:neighbours]
        votes = [int(label) for label in labels[order]]
        ranked = sorted((votes.count(label) for label in set(votes)), reverse=True)
        winners.append(next(label for label in votes if votes.count(label) == ranked[0]))
        margins.append((ranked[0] - (ranked[1] if len(ranked) > 1 else 0)) / len(votes))
    return winners, margins


@pytest.mark.parametrize("neighbours", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_vote_and_margin_are_the_loops(neighbours: int, count: int) -> None:
    generator = torch.Generator().manual_seed(neighbours)
    training = torch.randn(60, 3, generator=generator)
    latents = torch.randn(200, 3, generator=generator)
    labels = torch.randint(count, (60,), generator=generator)
    found, margins = vote(labels, nearest_in(index_of(training), latents, neighbours), count)
    winners, expected = voted_by_loop(latents.numpy(), training.numpy(), labels.numpy(), neighbours)
    assert found.tolist() == winners
    assert margins.dtype == torch.float32
    torch.testing.assert_close(margins, torch.tensor(expected), rtol=0, atol=1e-6)
    if count > 1 and neighbours in (2, 4, 8):
        assert (margins == 0).any()  # ties do occur
    if count == 1 or neighbours == 1:
        assert (margins == 1).all()


def test_a_tie_goes_to_the_nearest_among_the_tied() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 1])
    cases = {(0, 1, 3, 4): (2, 0), (1, 0, 3, 4): (0, 0), (2, 1, 3, 0, 4): (0, 0), (2, 0, 1): (1, 0), (5,): (1, 1)}
    for neighbours, (winner, margin) in cases.items():
        found = vote(labels, torch.tensor([neighbours]), 4)
        assert (found[0].tolist(), found[1].tolist()) == ([winner], [margin])


def test_the_nearest_come_first_and_are_no_more_than_there_are() -> None:
    training = torch.tensor([[0.0, 0], [3, 0], [1, 0]])
    assert nearest_in(index_of(training), torch.tensor([[0.2, 0], [2.9, 0]]), 2).tolist() == [[0, 2], [1, 2]]
    assert nearest_in(index_of(training), torch.tensor([[0.2, 0]]), 9).tolist() == [[0, 2, 1]]
    index = index_of(training)
    assert nearest_in(index, torch.tensor([[2.9, 0]]), 2).tolist() == [[1, 2]]
    assert nearest_in(index, torch.empty(0, 2), 2).shape == (0, 2)
