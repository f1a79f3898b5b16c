"""The Sparse Transformation Layer: image to its projection T(x) on the quasi-natural space (the paper, section 3.2)."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from quasinat.arrays import Filters, Images, PerImageInt
from quasinat.errors import InputError, UsageError
from quasinat.files import read_tensors, write_tensors
from quasinat.sparse_coding import (
    SOLVERS,
    Adjoint,
    Auto,
    Dictionary,
    Identity,
    Solver,
    SparseCodingProblem,
    reconstruct,
    solve,
)
from quasinat.strata import DenoisingAutoencoder, Split, Strata, split_bands

SCHEMA = 1
RANGE_SLACK = 1e-3  # what rounding in half precision may add


class SparseTransformationLayer(nn.Module):
    """Images `B C H W` in [0, 1] to T(x), of the same shape and range; put it in front of any classifier.

    Each image's stratum picks the dictionary, the band to be coded is sparse-coded with it (Eq. 2), the band that
    passes is added back and the sum is clipped to [0, 1]. Images of any size of at least S pixels.

    Args:
        strata: picks the dictionary; `None` for a single universal one.
        dictionaries: one per stratum, of equal K, C and S.
        sparsity: lambda.
        split: "tikhonov" or "none", as the dictionaries were learned; see `split_bands`.
        solver: of Eq. (2); `Auto()` if none is given.
    """

    filters: Tensor

    def __init__(
        self,
        strata: Strata | None,
        dictionaries: Sequence[Dictionary],
        sparsity: float = 0.2,
        *,
        split: Split = "tikhonov",
        solver: Solver | None = None,
    ) -> None:
        super().__init__()
        expected = 1 if strata is None else strata.count
        if len(dictionaries) != expected:
            raise UsageError(f"{len(dictionaries)} dictionaries for {expected} strata", "give one dictionary a stratum")
        if len({dictionary.filters.shape for dictionary in dictionaries}) > 1:
            raise UsageError("the dictionaries differ in K, C or S", "learn them with the same filters and size")
        self.strata = strata
        self.sparsity = sparsity
        self.split = split
        self.solver: Solver = solver or Auto()
        self.adjoint: Adjoint | None = None
        self.constraint = dictionaries[0].constraint
        self.curves = [list(dictionary.curve) for dictionary in dictionaries]
        self.register_buffer("filters", torch.stack([dictionary.filters for dictionary in dictionaries]))

    def forward(self, images: Images) -> Images:
        """T(x). Its gradient is the one named by `with_adjoint`; without one, asking for a gradient is an error."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return self.project(images)
        if self.adjoint is None:
            raise UsageError(
                "no gradient is named for the Sparse Transformation Layer",
                "name one, as in defended.with_adjoint(quasinat.Identity())",
            )
        if isinstance(self.adjoint, Identity):
            return self.adjoint.apply(self.project, images)
        adjoint: Adjoint = self.adjoint
        return self._transform(images, lambda x, f: reconstruct(x, f, self.sparsity, adjoint, solver=self.solver))

    def stratum(self, images: Images) -> PerImageInt:
        """The stratum of each image, `B`; zeros without strata."""
        if self.strata is None:
            return torch.zeros(len(images), dtype=torch.int64, device=images.device)
        members: PerImageInt = self.strata(images)
        return members

    @torch.no_grad()
    def project(self, images: Images) -> Images:
        """T(x) without a gradient. What an image gets does not depend on the others in the batch."""
        return self._transform(
            images,
            lambda x, f: solve(SparseCodingProblem(x, f, self.sparsity), self.solver, codes="sparse").reconstruction,
        )

    def _transform(self, images: Images, coding: Callable[[Images, Filters], Images]) -> Images:
        """T(x) with `coding` for the reconstruction of the coded band of one stratum's images."""
        self._check(images)
        if len(images) == 0:
            return images.clone()
        with torch.no_grad():  # the stratum is held fixed
            members = self.stratum(images.detach())
        passed, coded = split_bands(images, self.split)
        order, parts = members.argsort(stable=True), []
        for stratum, filters in enumerate(self.filters):
            own = order[members[order] == stratum]
            if len(own):
                parts.append(coding(coded[own], filters))
        return (passed + torch.cat(parts)[order.argsort()]).clamp(0, 1)

    def _check(self, images: Images) -> None:
        """Refuses bad images, naming them by their place in the whole batch."""
        SparseCodingProblem(images, self.filters[0], self.sparsity)
        outside = ((images < -RANGE_SLACK) | (images > 1 + RANGE_SLACK)).flatten(1).any(1)
        if bool(outside.any()):
            place = int(outside.nonzero()[0])
            low, high = float(images[place].min()), float(images[place].max())
            raise InputError(
                f"image {place} has values from {low:g} to {high:g}, not in [0, 1]", "divide 8-bit images by 255"
            )

    def with_adjoint(self, adjoint: Adjoint) -> "SparseTransformationLayer":
        """The same layer, sharing its tensors, differentiated as `adjoint` says.

        `Identity` stands for the whole layer. `Unrolled` and `Implicit` differentiate the sparse coding, and the split
        and the clip as they are; the stratum is held fixed.
        """
        other = copy.copy(self)
        other.adjoint = adjoint
        return other

    def with_sparsity(self, sparsity: float) -> "SparseTransformationLayer":
        """The same layer, sharing its tensors, with another lambda."""
        other = copy.copy(self)
        other.sparsity = sparsity
        return other

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, its card in the metadata; whole or not at all."""
        card: dict[str, object] = {
            "schema": SCHEMA,
            "sparsity": self.sparsity,
            "split": self.split,
            "constraint": self.constraint,
            "solver": _solver_card(self.solver),
            "curves": self.curves,
            "strata": None,
        }
        if self.strata is not None:
            autoencoder = self.strata.autoencoder
            card["strata"] = {
                "count": self.strata.count,
                "neighbours": self.strata.neighbours,
                "channels": autoencoder.channels,
                "width": autoencoder.width,
            }
        write_tensors(Path(path), self.state_dict(), {"quasinat": json.dumps(card)})

    @staticmethod
    def load(path: str | Path) -> "SparseTransformationLayer":
        """Reads what `save` wrote; no pickle is involved.

        Raises:
            InputError: the file is missing, damaged, no layer, or of another schema.
        """
        tensors, metadata = read_tensors(Path(path))
        try:
            card = json.loads(metadata["quasinat"])
            if card["schema"] != SCHEMA:
                raise InputError(f"{path} has schema {card['schema']}, not {SCHEMA}", "learn the layer again")
            dictionaries = [
                Dictionary(filters, card["constraint"], card["sparsity"], tuple(curve))
                for filters, curve in zip(tensors["filters"], card["curves"], strict=True)
            ]
            strata = _strata_from(card["strata"], tensors) if card["strata"] else None
            solver = _solver_from(card["solver"])
            layer = SparseTransformationLayer(
                strata, dictionaries, card["sparsity"], split=card["split"], solver=solver
            )
            layer.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no Sparse Transformation Layer ({error})", "learn the layer again") from None
        return layer.eval()


def _solver_card(solver: Solver) -> dict[str, object]:
    values = {field.name: getattr(solver, field.name) for field in fields(solver)}  # type: ignore[arg-type]
    plain = {name: str(value) if isinstance(value, torch.dtype) else value for name, value in values.items()}
    return {"name": next(name for name, kind in SOLVERS.items() if type(solver) is kind), **plain}


def _solver_from(card: dict[str, object]) -> Solver:
    values = {
        name: getattr(torch, value.removeprefix("torch.")) if name == "storage" and isinstance(value, str) else value
        for name, value in card.items()
        if name != "name"
    }
    return SOLVERS[str(card.get("name", "admm"))](**values)


def _strata_from(card: dict[str, int], tensors: dict[str, Tensor]) -> Strata:
    autoencoder = DenoisingAutoencoder(card["channels"], card["width"])
    latents, labels = tensors["strata.latents"], tensors["strata.labels"]
    return Strata(autoencoder, latents, labels, count=card["count"], neighbours=card["neighbours"])


@torch.no_grad()
def project(
    transform: Callable[[Images], Images],
    images: Images,
    *,
    batch_size: int = 256,
    on_batch: Callable[[int], None] | None = None,
) -> Images:
    """`transform` of a whole set in batches; `on_batch` is called with the number of images done."""
    parts = []
    for start in range(0, len(images), batch_size):
        parts.append(transform(images[start : start + batch_size]))
        if on_batch:
            on_batch(min(start + batch_size, len(images)))
    return torch.cat(parts) if parts else images
