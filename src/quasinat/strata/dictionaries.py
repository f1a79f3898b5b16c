"""One dictionary for all images, or one per stratum (the paper, sections 3.3 and 3.4)."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quasinat.errors import UsageError
from quasinat.parallel import joined, mine
from quasinat.sparse_coding.dictionary import Dictionary, ImageSource
from quasinat.sparse_coding.dictionary_problem import Learner, LearningState
from quasinat.sparse_coding.learning import learn_dictionary
from quasinat.sparse_coding.proximal import Constraint
from quasinat.strata.bands import CodedBand, Split
from quasinat.strata.learning_file import load_state, save_state
from quasinat.strata.strata import Strata
from quasinat.training.checkpoint import digest

AT_A_TIME = 1024


def learn_dictionaries(
    images: ImageSource,
    strata: Strata | None = None,
    *,
    filters: int = 64,
    size: int = 8,
    sparsity: float = 0.2,
    split: Split = "tikhonov",
    constraint: Constraint = "joint",
    zero_mean: bool = False,
    passes: int = 8,
    tolerance: float = 1e-3,
    learner: str | Learner = "auto",
    images_each: int | None = None,
    held_out: int = 256,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_read: Callable[[int, int], None] | None = None,
    on_pass: Callable[[int, LearningState], None] | None = None,
) -> tuple[Dictionary, ...]:
    """Learns one dictionary per stratum from its training images, or a single one of all without strata.

    Args:
        images: training images `N C H W`, in [0, 1] or 8-bit; a memory-mapped tensor need not fit in memory.
        strata: their strata; each dictionary sees its own stratum's images only.
        filters, size, sparsity, constraint, zero_mean, passes, tolerance, learner: see `learn_dictionary`.
        split: which band is coded, see `split_bands`.
        images_each: at most so many images a dictionary, drawn at random; all of them if none is given.
        held_out: images of each stratum that its filters are not fitted to, and whose objective tells when to stop; at
            most a tenth of the stratum.
        seed: of the draw, the initial filters and the order.
        checkpoint: a folder where each dictionary's state is kept after every pass; an interrupted call with the same
            arguments goes on from there.
        on_read: called with the dictionary's index and the number of images just read for it.
        on_pass: called with the dictionary's index and its state, before the first pass and after each.

    Raises:
        UsageError: a stratum without training images, or a checkpoint of other arguments.
    """
    members = members_of(images, strata)
    dictionaries = []
    for stratum in range(1 if strata is None else strata.count):
        fitted, kept = _draw(members, stratum, images_each, held_out, seed)
        settings: dict[str, Any] = {
            "filters": filters,
            "size": size,
            "sparsity": sparsity,
            "split": split,
            "constraint": constraint,
            "zero_mean": zero_mean,
            "passes": passes,
            "tolerance": tolerance,
            "learner": repr(learner),
            "images": len(fitted),
            "held_out": len(kept),
            "seed": seed,
        }
        if checkpoint is not None:  # an extra reading, which costs little beside a pass
            settings["data"] = _fingerprint(images, torch.cat([fitted, kept]))
        path = None if checkpoint is None else checkpoint / f"dictionary-{stratum}.safetensors"

        def report(
            state: LearningState, stratum: int = stratum, path: Path | None = path, made: Any = settings
        ) -> None:
            if path is not None:
                save_state(state, path, made)
            if on_pass:
                on_pass(stratum, state)

        source: ImageSource = CodedBand(images, fitted, split)
        if on_read:
            source = Counted(source, partial(on_read, stratum))
        dictionaries.append(
            learn_dictionary(
                source,
                filters=filters,
                size=size,
                sparsity=sparsity,
                passes=passes,
                tolerance=tolerance,
                learner=learner,
                constraint=constraint,
                zero_mean=zero_mean,
                held_out=CodedBand(images, kept, split),
                seed=seed + stratum,
                resume=None if path is None else load_state(path, settings),
                on_pass=report,
            )
        )
    return tuple(dictionaries)


def members_of(images: ImageSource, strata: Strata | None) -> Tensor:
    """The stratum of every image, read a few at a time, each process its share; zeros without strata."""
    if strata is None:
        return torch.zeros(len(images), dtype=torch.int64)
    parts = []
    for rows in mine(torch.arange(len(images))).split(AT_A_TIME):
        batch = images[rows]
        parts.append(strata(batch if batch.is_floating_point() else batch.float() / 255).cpu())
    return joined(torch.cat(parts))


def _draw(members: Tensor, stratum: int, images_each: int | None, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of a stratum's images to fit the filters to, and rows held out; disjoint, in random order."""
    generator = torch.Generator().manual_seed(seed + stratum)
    own = (members == stratum).nonzero().flatten()
    if len(own) == 0:
        raise UsageError(f"stratum {stratum} holds no training image", "ask for fewer strata")
    drawn = own[torch.randperm(len(own), generator=generator)]
    kept = min(held_out, len(own) // 10)
    return drawn[kept : len(own) if images_each is None else kept + images_each], drawn[:kept]


def _fingerprint(images: ImageSource, rows: Tensor) -> str:
    """The SHA-256 of the images at `rows`, read a few at a time."""
    total = hashlib.sha256()
    for part in rows.split(AT_A_TIME):
        total.update(digest(images[part]).encode())
    return total.hexdigest()


class Counted:
    """An image source that says how many images were read from it."""

    def __init__(self, images: ImageSource, on_read: Callable[[int], None]) -> None:
        self.images = images
        self.on_read = on_read

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        images = self.images[rows]
        self.on_read(len(rows))
        return images
