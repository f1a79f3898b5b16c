"""The vote of the k nearest training latents (the paper, section 3.4)."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from quasinat.arrays import Latents, PerImage, PerImageInt

Training = Float[Tensor, "training features"]
Neighbours = Int64[Tensor, "batch neighbours"]


def index_of(training: Training) -> Any:
    """faiss's exact index of training latents; it holds a copy of them in main memory."""
    import faiss

    index = faiss.IndexFlatL2(training.shape[1])
    index.add(training.detach().cpu().float().contiguous().numpy())
    return index


def nearest_in(index: Any, latents: Latents, neighbours: int) -> Neighbours:
    """Places in the index of the latents nearest in Euclidean distance, nearest first; at most as many as it holds."""
    _, found = index.search(latents.detach().cpu().float().contiguous().numpy(), min(neighbours, index.ntotal))
    return torch.from_numpy(found)


def vote(labels: Int64[Tensor, "training"], neighbours: Neighbours, count: int) -> tuple[PerImageInt, PerImage]:
    """The stratum that most neighbours belong to, and by what margin it won.

    Args:
        labels: the stratum of each training latent, from 0.
        neighbours: places of the k nearest, nearest first.
        count: M, the number of strata.

    Returns:
        The winner, `B`; a tie goes to the stratum of the nearest among the tied. The margin, `B` in [0, 1]: the
        winner's votes less the runner-up's, over k; 0 for a tie, 1 for a vote of one mind.

    Examples:
        >>> import torch
        >>> from quasinat.strata.neighbours import vote
        >>> labels = torch.tensor([0, 0, 1, 1, 1])  # of five training latents
        >>> vote(labels, torch.tensor([[2, 0, 3]]), count=2)
        (tensor([1]), tensor([0.3333]))
    """
    votes = torch.nn.functional.one_hot(labels[neighbours], count)  # batch neighbours count
    tally = votes.sum(1)
    most = tally.max(1, keepdim=True).values
    first = votes.argmax(1).masked_fill(tally != most, neighbours.shape[1])  # the rank of each tied stratum's nearest
    winner = first.argmin(1)
    runner_up = tally.scatter(1, winner[:, None], 0).max(1).values
    return winner, (most[:, 0] - runner_up).float() / neighbours.shape[1]
