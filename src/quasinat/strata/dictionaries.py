"""One dictionary for all images, or one per stratum (the paper, sections 3.3 and 3.4)."""

from collections.abc import Callable
from typing import Literal, get_args

import torch

from quasinat.arrays import Images
from quasinat.errors import UsageError, did_you_mean
from quasinat.sparse_coding.dictionary import Dictionary
from quasinat.sparse_coding.frequency_split import tikhonov_split
from quasinat.sparse_coding.learning import learn_dictionary
from quasinat.sparse_coding.proximal import Constraint
from quasinat.strata.strata import Strata

Split = Literal["tikhonov", "none"]


def split_bands(images: Images, split: Split) -> tuple[Images, Images]:
    """(passed through, to be coded), which add up to the image.

    "tikhonov" passes the low-pass part through, as the authors' released code does; "none" is Eq. (2) on the image
    itself but for the mid-grey 0.5, so that nothing of the image passes uncoded.
    """
    if split not in get_args(Split):
        raise UsageError(f"unknown split {split!r}", did_you_mean(str(split), list(get_args(Split))))
    if split == "tikhonov":
        return tikhonov_split(images)
    return torch.full_like(images, 0.5), images - 0.5


def learn_dictionaries(
    images: Images,
    strata: Strata | None = None,
    *,
    filters: int = 64,
    size: int = 8,
    sparsity: float = 0.2,
    split: Split = "tikhonov",
    constraint: Constraint = "joint",
    iterations: int = 8,
    images_each: int = 300,
    seed: int = 0,
    on_iteration: Callable[[int, int, float], None] | None = None,
) -> tuple[Dictionary, ...]:
    """Learns one dictionary per stratum from its training images, or a single one of all without strata.

    Args:
        images: training images `B C H W` in [0, 1].
        strata: their strata; each dictionary sees its own stratum's images only.
        filters, size, sparsity: K, S and lambda.
        split: which band is coded, see `split_bands`.
        constraint: on the filters, see `learn_dictionary`.
        iterations: outer iterations each.
        images_each: at most so many images a dictionary, drawn at random.
        seed: of the draw and of the initial filters.
        on_iteration: called with the dictionary's index, the iteration and the objective.
    """
    members = torch.zeros(len(images), dtype=torch.int64) if strata is None else strata(images).cpu()
    dictionaries = []
    for stratum in range(1 if strata is None else strata.count):
        generator = torch.Generator().manual_seed(seed + stratum)
        own = (members == stratum).nonzero().flatten()
        if len(own) == 0:
            raise UsageError(f"stratum {stratum} holds no training image", "ask for fewer strata")
        chosen = own[torch.randperm(len(own), generator=generator)[:images_each]]

        def report(iteration: int, objective: float, stratum: int = stratum) -> None:
            if on_iteration:
                on_iteration(stratum, iteration, objective)

        dictionaries.append(
            learn_dictionary(
                split_bands(images[chosen], split)[1],
                filters=filters,
                size=size,
                sparsity=sparsity,
                iterations=iterations,
                constraint=constraint,
                seed=seed + stratum,
                on_iteration=report,
            )
        )
    return tuple(dictionaries)
