"""A transformation as a run needs to know it: the module, what tells it from others, and which images it takes."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.artefact import file_digest
from quasinat.defences.registry import defence_from
from quasinat.defences.transformation import Transformation, with_seed
from quasinat.errors import InputError, UsageError
from quasinat.experiments.strata_report import check_fit
from quasinat.layer import SparseTransformationLayer
from quasinat.tiling import project_large


@dataclass(frozen=True, eq=False)
class NamedTransform:
    """Images to images, with its identity.

    Attributes:
        module: the Sparse Transformation Layer or one of `quasinat.defences`, in eval mode.
        identity: what decides T(x), as JSON holds it.
        channels: of the images that it takes; any number where it is None.
        least_side: of them, in pixels, and why: what is in the way.
        files: of what it has learned.
    """

    module: nn.Module
    identity: dict[str, Any]
    channels: int | None = None
    least_side: int = 1
    reason: str = "the transformation's least"
    files: tuple[Path, ...] = field(default=())

    def to(self, device: str) -> "NamedTransform":
        """The same on a device."""
        moved = self.module.to(device)
        return NamedTransform(moved, self.identity, self.channels, self.least_side, self.reason, self.files)

    def check(self, images: Images) -> None:
        """Raises an `InputError` where it cannot take such images: other channels, or too small."""
        if isinstance(self.module, SparseTransformationLayer):
            check_fit(self.module, images)
            return
        if self.channels not in (None, images.shape[1]):
            problem = f"the images have {images.shape[1]} channels and {self.name} was made for {self.channels}"
            raise InputError(problem, "convert the images, or pass an artefact of images like these")
        if min(images.shape[2:]) < self.least_side:
            problem = f"images of {min(images.shape[2:])} pixels are too small for {self.name}"
            raise InputError(problem, f"give at least {self.least_side} a side")

    @property
    def name(self) -> str:
        """Of the defence; "layer" of a layer."""
        return str(self.identity.get("defence", "layer"))

    @torch.no_grad()
    def project(self, images: Images, *, copy: int = 0, any_size: bool = False) -> Tensor:
        """T of a batch on any device, on the CPU; a randomised transformation draws anew for every `copy`.

        Raises:
            UsageError: the transformation changes the images' size, and not `any_size` will do.
        """
        module = self.module
        if copy and self.randomised:
            module = with_seed(module, self.identity["seed"] + copy)
        place = next((tensor.device for tensor in module.state_dict().values()), images.device)
        run = partial(project_large, module) if isinstance(module, SparseTransformationLayer) else module
        made: Tensor = run(images.to(place)).cpu()
        if made.shape != images.shape and not any_size:
            problem = f"{self.name} makes images of {tuple(made.shape[2:])} pixels of {tuple(images.shape[2:])}"
            raise UsageError(problem, "use a transformation that keeps their size, such as resize-pad:keep_size=yes")
        return made

    @property
    def randomised(self) -> bool:
        """Whether it draws at random, from a seed."""
        return isinstance(self.identity.get("seed"), int)


def layer_transform(path: Path, sparsity: float | None = None) -> NamedTransform:
    """The Sparse Transformation Layer of a file, with another lambda where one is given.

    Raises:
        InputError: the file is missing, damaged or no layer.
    """
    layer = SparseTransformationLayer.load(path)
    if sparsity is not None:
        layer = layer.with_sparsity(sparsity)
    identity = {"layer": file_digest(path), "lambda": float(layer.sparsity)}
    channels, size = layer.filters.shape[-3], layer.filters.shape[-1]
    return NamedTransform(layer, identity, channels, size, f"the filters ({size})", (path,))


def defence_transform(text: str, artefact: Path | None = None) -> NamedTransform:
    """One of `DEFENCES`, by name and options, with the file of what it has learned.

    Args:
        text: such as "tvm" or "tvm:weight=0.05,drop=0.3".
        artefact: the file that the defence needs; see `NEEDS`.

    Raises:
        UsageError: an unknown defence or option, or an artefact that is missing or not wanted.
        InputError: a file that cannot be read, or of another kind.
    """
    made = defence_from(text, artefact)
    parts = [part for part in made.module.modules() if isinstance(part, Transformation)]
    settings = [{"kind": type(part).__name__, **part.settings()} for part in parts]
    seeds = [part.settings()["seed"] for part in parts if isinstance(part.settings().get("seed"), int)]
    identity: dict[str, Any] = {"defence": made.name, "settings": settings}
    if artefact is not None:
        identity["artefact"] = file_digest(artefact)
    if seeds:
        identity["seed"] = seeds[0]
    least = max((part.least_side for part in parts), default=1)
    files = () if artefact is None else (artefact,)
    return NamedTransform(made.module.eval(), identity, made.channels, least, f"{made.name}'s least ({least})", files)


def named_transform(
    layer: Path | None, defence: str | None, artefact: Path | None, sparsity: float | None = None
) -> NamedTransform | None:
    """The transformation that a command line names: `--layer FILE`, or `--defence NAME` with its `--artefact FILE`.

    Raises:
        UsageError: both, or an option of the other; besides those of `layer_transform` and `defence_transform`.
    """
    if layer is not None and defence is not None:
        raise UsageError("--layer and --defence name two transformations", "leave one of them out")
    if artefact is not None and defence is None:
        raise UsageError("--artefact belongs to a defence", "name it with --defence")
    if sparsity is not None and layer is None:
        raise UsageError("--lambda is the layer's", "leave it out, or name a --layer")
    if layer is not None:
        return layer_transform(layer, sparsity)
    return None if defence is None else defence_transform(defence, artefact)
