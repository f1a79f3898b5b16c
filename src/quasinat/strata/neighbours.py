"""The vote of the k nearest training latents (the paper, section 3.4)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from quasinat.arrays import Latents, PerImageInt


def nearest(
    latents: Latents, training: Float[Tensor, "training features"], neighbours: int
) -> Int64[Tensor, "batch neighbours"]:
    """Indices of the nearest training latents in Euclidean distance, nearest first."""
    import faiss

    index = faiss.IndexFlatL2(training.shape[1])
    index.add(training.detach().cpu().float().contiguous().numpy())
    _, found = index.search(latents.detach().cpu().float().contiguous().numpy(), min(neighbours, len(training)))
    return torch.from_numpy(found)


def vote(labels: Int64[Tensor, "training"], neighbours: Int64[Tensor, "batch neighbours"], count: int) -> PerImageInt:
    """The stratum that most neighbours belong to; a tie goes to the stratum of the nearest among the tied."""
    votes = torch.nn.functional.one_hot(labels[neighbours], count)  # batch neighbours count
    tally = votes.sum(1)
    tied = tally == tally.max(1, keepdim=True).values
    first = votes.argmax(1).masked_fill(~tied, neighbours.shape[1])  # the rank of each stratum's nearest neighbour
    return first.argmin(1)
