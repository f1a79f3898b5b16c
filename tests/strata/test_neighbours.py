"""The vote of the nearest latents against a loop in NumPy."""

import numpy as np
import pytest
import torch

from quasinat.strata.neighbours import nearest, vote


def voted_by_loop(latents: np.ndarray, training: np.ndarray, labels: np.ndarray, neighbours: int) -> list[int]:
    """The winner of each vote; among the tied the one whose member is nearest."""
    winners = []
    for latent in latents:
        order = np.argsort(((training - latent) ** 2).sum(1), kind="stable")[:neighbours]
        votes = [int(label) for label in labels[order]]
        most = max(votes.count(label) for label in votes)
        winners.append(next(label for label in votes if votes.count(label) == most))
    return winners


@pytest.mark.parametrize("neighbours", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("count", [2, 5])
def test_the_vote_is_the_loops(neighbours: int, count: int) -> None:
    generator = torch.Generator().manual_seed(neighbours)
    training = torch.randn(60, 3, generator=generator)
    latents = torch.randn(200, 3, generator=generator)
    labels = torch.randint(count, (60,), generator=generator)
    found = vote(labels, nearest(latents, training, neighbours), count)
    assert found.tolist() == voted_by_loop(latents.numpy(), training.numpy(), labels.numpy(), neighbours)


def test_a_tie_goes_to_the_nearest_among_the_tied() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 1])
    cases = {(0, 1, 3, 4): 2, (1, 0, 3, 4): 0, (2, 1, 3, 0, 4): 0, (2, 0, 1): 2 - 1, (5,): 1}
    for neighbours, winner in cases.items():
        assert vote(labels, torch.tensor([neighbours]), 4).tolist() == [winner]


def test_the_nearest_come_first_and_are_no_more_than_there_are() -> None:
    training = torch.tensor([[0.0, 0], [3, 0], [1, 0]])
    assert nearest(torch.tensor([[0.2, 0], [2.9, 0]]), training, 2).tolist() == [[0, 2], [1, 2]]
    assert nearest(torch.tensor([[0.2, 0]]), training, 9).tolist() == [[0, 2, 1]]
