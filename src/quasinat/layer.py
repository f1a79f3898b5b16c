"""The Sparse Transformation Layer: image to its projection T(x) on the quasi-natural space (the paper, section 3.2)."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from quasinat.arrays import Filters, Images, PerImageInt
from quasinat.artefact import Card, check_numbers, check_tensors, read_artefact, write_artefact
from quasinat.errors import InputError, UsageError
from quasinat.layer_options import Clipping, Normalise, RefineOver, check_clipping, check_options, check_stored
from quasinat.sparse_coding import (
    Adjoint,
    Auto,
    Dictionary,
    Identity,
    Solver,
    SparseCodingProblem,
    describe_solver,
    dictionary_from,
    history,
    reconstruct,
    solve,
    solver_from,
    statistics,
    update_filters,
)
from quasinat.strata import Split, Strata, split_bands, strata_from

KIND = "layer"
RANGE_SLACK = 1e-3  # what rounding in half precision may add
REFINE_STEPS = 10  # gradient steps of one filter update


class SparseTransformationLayer(nn.Module):
    """Images `B C H W` in [0, 1] to T(x), of the same shape and range; put it in front of any classifier.

    Each image's stratum picks the dictionary, the band to be coded is sparse-coded with it (Eq. 2), the band that
    passes is added back and the sum is brought to [0, 1]. Images of any size of at least S pixels.

    Args:
        strata: picks the dictionary; `None` for a single universal one.
        dictionaries: one per stratum, of equal K, C and S.
        sparsity: lambda.
        split: as the dictionaries were learned; see `split_bands`.
        normalise: how T(x) is brought to [0, 1]: "clip", or "max" as in the authors' released code, which divides each
            image by its largest value first (and so changes its brightness).
        refine: so many filter updates for the input itself, codes and filters taking turns, before the coding that
            counts (the paper, Fig. 2: "jointly optimize the sparse feature maps and filters").
        refine_over: whether each "image" refines filters of its own, or those of a stratum in a "batch" share theirs:
            then what an image gets depends on the others.
        solver: of Eq. (2); `Auto()` if none is given.
        provenance: how the layer was made (data, seed, settings ...), anything that JSON holds; kept in its file.

    Raises:
        UsageError: dictionaries that do not fit the strata or each other, or an unknown or impossible option.

    Examples:
        >>> import torch
        >>> import quasinat as qn
        >>> layer = qn.SparseTransformationLayer(None, [qn.Dictionary(torch.ones(1, 1, 3, 3) / 3, "joint", 0.2)])
        >>> layer(torch.rand(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    filters: Tensor

    def __init__(
        self,
        strata: Strata | None,
        dictionaries: Sequence[Dictionary],
        sparsity: float = 0.2,
        *,
        split: Split = "tikhonov",
        normalise: Normalise = "clip",
        refine: int = 0,
        refine_over: RefineOver = "image",
        solver: Solver | None = None,
        provenance: Card | None = None,
    ) -> None:
        super().__init__()
        expected = 1 if strata is None else strata.count
        if len(dictionaries) != expected:
            raise UsageError(f"{len(dictionaries)} dictionaries for {expected} strata", "give one dictionary a stratum")
        if len({dictionary.filters.shape for dictionary in dictionaries}) > 1:
            raise UsageError("the dictionaries differ in K, C or S", "learn them with the same filters and size")
        check_options(split, normalise, refine, refine_over)
        self.strata = strata
        self.sparsity = sparsity
        self.split = split
        self.normalise = normalise
        self.refine = refine
        self.refine_over = refine_over
        self.solver: Solver = solver or Auto()
        self.adjoint: Adjoint | None = None
        self.clipping: Clipping = "exact"
        self.provenance = dict(provenance or {})
        self.learned = [history(dictionary) for dictionary in dictionaries]
        self.register_buffer("filters", torch.stack([dictionary.filters for dictionary in dictionaries]))

    @property
    def dictionaries(self) -> tuple[Dictionary, ...]:
        """The dictionary of each stratum, with how it was learned."""
        return tuple(dictionary_from(filters, past) for filters, past in zip(self.filters, self.learned, strict=True))

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
        self.check(images)
        if len(images) == 0:
            return images.clone()
        with torch.no_grad():  # the stratum is held fixed
            members = self.stratum(images.detach())
        passed, coded = split_bands(images, self.split)
        order, parts = members.argsort(stable=True), []
        for stratum, filters in enumerate(self.filters):
            own = order[members[order] == stratum]
            # Refined filters differ from image to image, unless the batch shares them.
            alone = self.refine > 0 and self.refine_over == "image"
            for rows in own.split(1 if alone else max(1, len(own))):
                if len(rows):
                    parts.append(coding(coded[rows], self._refined(coded[rows].detach(), filters, stratum)))
        return self._normalised(passed + torch.cat(parts)[order.argsort()])

    @torch.no_grad()
    def _refined(self, images: Images, filters: Filters, stratum: int) -> Filters:
        """The filters after `refine` turns of coding and filter update on `images`; a gradient holds them fixed."""
        past = self.learned[stratum]
        for _ in range(self.refine):
            codes = solve(SparseCodingProblem(images, filters, self.sparsity), self.solver, codes="sparse").codes
            seen = statistics(codes, images, filters.shape[-1])
            filters = update_filters(
                filters, seen, constraint=past["constraint"], zero_mean=past["zero_mean"], steps=REFINE_STEPS
            )
        return filters

    def _normalised(self, images: Images) -> Images:
        """T(x) in [0, 1]."""
        if self.normalise == "max":
            images = images / images.flatten(1).amax(1).clamp_min(1 / 255).view(-1, 1, 1, 1)
        if self.clipping == "straight-through":
            return Identity().apply(lambda x: x.clamp(0, 1), images)
        return images.clamp(0, 1)

    def check(self, images: Images) -> None:
        """Raises an `InputError` of images that it cannot take; names one by its place in the whole batch."""
        SparseCodingProblem(images, self.filters[0], self.sparsity)
        outside = ((images < -RANGE_SLACK) | (images > 1 + RANGE_SLACK)).flatten(1).any(1)
        if bool(outside.any()):
            place = int(outside.nonzero()[0])
            low, high = float(images[place].min()), float(images[place].max())
            raise InputError(
                f"image {place} has values from {low:g} to {high:g}, not in [0, 1]", "divide 8-bit images by 255"
            )

    def with_adjoint(self, adjoint: Adjoint, *, clipping: Clipping = "exact") -> "SparseTransformationLayer":
        """The same layer, sharing its tensors, differentiated as `adjoint` says.

        `Identity` stands for the whole layer. `Unrolled` and `Implicit` differentiate the sparse coding and the split
        as they are. The stratum is voted anew at every image and held fixed by the derivative; `within` holds it fixed
        altogether, and the routing attack moves it.

        Args:
            adjoint: of the sparse coding.
            clipping: the derivative of bringing T(x) to [0, 1]: "exact", which is zero where a pixel is clipped, or
                "straight-through", which is one.

        Raises:
            UsageError: an unknown `clipping`.
        """
        check_clipping(clipping)
        other = copy.copy(self)
        other.adjoint, other.clipping = adjoint, clipping
        return other

    def within(self, stratum: int) -> "SparseTransformationLayer":
        """The layer with the dictionary of one stratum for every image, whatever the vote says; universal in form.

        Raises:
            UsageError: there is no such stratum.
        """
        if not 0 <= stratum < len(self.filters):
            raise UsageError(f"the layer has no stratum {stratum}", f"name one from 0 to {len(self.filters) - 1}")
        alone = SparseTransformationLayer(
            None,
            [self.dictionaries[stratum]],
            self.sparsity,
            split=self.split,
            normalise=self.normalise,
            refine=self.refine,
            refine_over=self.refine_over,
            solver=self.solver,
            provenance=self.provenance,
        )
        alone.adjoint, alone.clipping = self.adjoint, self.clipping
        return alone.train(self.training)

    def with_sparsity(self, sparsity: float) -> "SparseTransformationLayer":
        """The same layer, sharing its tensors, with another lambda."""
        other = copy.copy(self)
        other.sparsity = sparsity
        return other

    def with_solver(self, solver: Solver) -> "SparseTransformationLayer":
        """The same layer, sharing its tensors, with another solver."""
        other = copy.copy(self)
        other.solver = solver
        return other

    def settings(self) -> Card:
        """Everything about the layer but its tensors, as JSON holds it."""
        return {
            "shape": list(self.filters.shape),
            "sparsity": self.sparsity,
            "split": self.split,
            "normalise": self.normalise,
            "refine": self.refine,
            "refine_over": self.refine_over,
            "solver": describe_solver(self.solver),
            "dictionaries": self.learned,
            "strata": None if self.strata is None else {**self.strata.settings(), "images": len(self.strata.labels)},
        }

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, its card in the metadata; whole or not at all."""
        card = {"settings": self.settings(), "provenance": self.provenance}
        write_artefact(Path(path), KIND, self.state_dict(), card)

    @staticmethod
    def load(path: str | Path) -> "SparseTransformationLayer":
        """Reads what `save` wrote; no pickle is involved.

        Raises:
            InputError: the file is missing, damaged, no layer, of another schema, or its tensors do not fit its card.
        """
        path = Path(path)
        tensors, card = read_artefact(path, KIND)
        try:
            settings = card["settings"]
            stratified = settings["strata"] is not None
            own = {k: tensor for k, tensor in tensors.items() if not (stratified and k.startswith("strata."))}
            check_tensors(path, own, {"filters": tuple(settings["shape"])})
            check_numbers(path, "filters", own["filters"])
            sparsity, refine = settings["sparsity"], settings["refine"]
            check_stored(sparsity, refine)
            strata = None
            if stratified:
                strata = strata_from(settings["strata"], tensors, prefix="strata.", path=path)
                if len(strata.labels) != settings["strata"]["images"]:
                    raise ValueError(f"{len(strata.labels)} training latents")
            layer = SparseTransformationLayer(
                strata,
                [
                    dictionary_from(filters, past)
                    for filters, past in zip(tensors["filters"], settings["dictionaries"], strict=True)
                ],
                sparsity,
                split=settings["split"],
                normalise=settings["normalise"],
                refine=refine,
                refine_over=settings["refine_over"],
                solver=solver_from(settings["solver"]),
                provenance=card["provenance"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the card of {path} is incomplete or wrong ({error})", "learn the layer again") from None
        return layer.eval()
