"""A transformation as a run needs to know it: the module, what tells it from others, and which images it takes."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.artefact import file_digest
from quasinat.batches import images_that_fit
from quasinat.defences.registry import defence_from
from quasinat.defences.transformation import Transformation, with_seed
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.experiments.strata_report import check_fit
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import ADMM, Auto, FusedADMM
from quasinat.tiling import project_large

# Bytes that a transformation holds for each pixel of a batch: of those on a CPU none was seen to take as many; on a GPU
# a layer's solver keeps its codes as maps, before and after a step, with what it makes of them for its report.
_HELD, _MAPS = 1024, 8
PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class NamedTransform:
    """Images to images, with its identity.

    Attributes:
        module: the Sparse Transformation Layer or one of `quasinat.defences`, in eval mode.
        identity: what decides T(x), as JSON holds it.
        channels: of the images that it takes; any number where it is None.
        least_side: of them, in pixels, and why: what is in the way.
        files: of what it has learned.
        exact: the layer in float32, where the module takes less.
    """

    module: nn.Module
    identity: dict[str, Any]
    channels: int | None = None
    least_side: int = 1
    reason: str = "the transformation's least"
    files: tuple[Path, ...] = field(default=())
    exact: SparseTransformationLayer | None = None

    def to(self, device: str) -> "NamedTransform":
        """The same on a device."""
        return replace(self, module=self.module.to(device), exact=None if self.exact is None else self.exact.to(device))

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

    def batch(self, height: int, width: int) -> int:
        """How many images of a size are coded together on the device where it is; see `images_that_fit`."""
        device = next((tensor.device for tensor in self.module.state_dict().values()), torch.device("cpu"))
        held = _HELD
        if isinstance(self.module, SparseTransformationLayer):
            held = _HELD if device.type == "cpu" else _MAPS * 4 * self.module.filters.shape[1]
        return images_that_fit(height, width, held, device)

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


def layer_transform(path: Path, sparsity: float | None = None, precision: str = "float32") -> NamedTransform:
    """The Sparse Transformation Layer of a file, with another lambda where one is given.

    Args:
        precision: of the maps of the solver, one of `PRECISIONS`; of another than float32, the identity says so.

    Raises:
        InputError: the file is missing, damaged or no layer.
        UsageError: there is no such precision, or the layer's solver has no maps.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"there is no --precision {precision!r}", did_you_mean(precision, list(PRECISIONS)))
    layer = SparseTransformationLayer.load(path)
    if sparsity is not None:
        layer = layer.with_sparsity(sparsity)
    identity = {"layer": file_digest(path), "lambda": float(layer.sparsity)}
    exact, storage = None, PRECISIONS[precision]
    if storage is not None:
        exact = layer
        if not isinstance(layer.solver, Auto | ADMM | FusedADMM):
            problem = f"the solver of {path} keeps no maps that could be of --precision {precision}"
            raise UsageError(problem, "leave it out, or learn the layer with another solver")
        layer = layer.with_solver(replace(layer.solver, storage=storage))
        identity["precision"] = precision
    channels, size = layer.filters.shape[-3], layer.filters.shape[-1]
    return NamedTransform(layer, identity, channels, size, f"the filters ({size})", (path,), exact)


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
    layer: Path | None,
    defence: str | None,
    artefact: Path | None,
    sparsity: float | None = None,
    precision: str = "float32",
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
    if precision != "float32" and layer is None:
        raise UsageError("--precision is the layer's", "leave it out, or name a --layer")
    if layer is not None:
        return layer_transform(layer, sparsity, precision)
    return None if defence is None else defence_transform(defence, artefact)
