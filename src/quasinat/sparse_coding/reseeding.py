"""Filters that no image uses are replaced, and counted: a dictionary never shrinks silently."""

from typing import NamedTuple

from torch import Tensor

from quasinat.arrays import Filters, Images
from quasinat.sparse_coding.dictionary import largest_patches
from quasinat.sparse_coding.dictionary_problem import DictionaryProblem
from quasinat.sparse_coding.statistics import Statistics

DEAD = 1e-4  # of the mean energy of a filter's maps


class Reseeded(NamedTuple):
    """Filters with the dead ones replaced, and which those are."""

    filters: Filters
    dead: Tensor


def reseed(filters: Filters, energy: Tensor, residual: Images, problem: DictionaryProblem) -> Reseeded:
    """Replaces each filter whose maps have less than a ten-thousandth of the mean energy.

    The new ones are the patches of the residual with the most energy: what the dictionary explains worst. A filter that
    was not used may change freely, so that the objective cannot rise.

    Args:
        filters: `K C S S`.
        energy: sum over images and pixels of z_k^2, `K`.
        residual: x - T(x) of some of the images, `B C H W`.
    """
    dead = (energy <= DEAD * energy.mean()).nonzero().flatten()
    if len(dead) == 0 or not bool((energy > 0).any()):  # nothing is coded at all: no filter is worse than another
        return Reseeded(filters, dead[:0])
    patches = largest_patches(residual, len(dead), filters.shape[-1])
    patches = patches[patches.flatten(1).abs().amax(1) > 0]
    dead = dead[: len(patches)]
    return Reseeded(filters.index_copy(0, dead, problem.project(patches)), dead)


def usage(statistics: Statistics) -> Tensor:
    """The energy of each filter's maps, sum z_k^2: `K`."""
    size = statistics.cross.shape[-1]
    return statistics.correlations[:, :, size - 1, size - 1].diagonal()


def without(statistics: Statistics, filters: Tensor) -> Statistics:
    """The statistics with nothing known of the filters at these indices."""
    if len(filters) == 0:
        return statistics
    correlations, cross = statistics.correlations.clone(), statistics.cross.clone()
    correlations[filters], correlations[:, filters], cross[filters] = 0, 0, 0
    return Statistics(correlations, cross, statistics.energy)
