"""The input transformations by name, what each has to have learned, and how a command line names one with options."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from quasinat.defences.bit_depth import BitDepth
from quasinat.defences.crops import CropEnsemble
from quasinat.defences.d3 import D3
from quasinat.defences.draws import Seed
from quasinat.defences.feature_squeezing import FeatureSqueezing
from quasinat.defences.filters import GaussianFilter, MeanFilter, MedianFilter
from quasinat.defences.jpeg import Jpeg
from quasinat.defences.magnet import Magnet
from quasinat.defences.magnet_autoencoder import load_magnet
from quasinat.defences.natural_patches import load_patch_dictionary
from quasinat.defences.non_local_means import NonLocalMeans
from quasinat.defences.patch_bank import PatchBank, load_patch_bank
from quasinat.defences.pixel_defend import PixelDefend
from quasinat.defences.pixel_deflection import PixelDeflection
from quasinat.defences.pixelcnn_learning import load_pixelcnn
from quasinat.defences.quilting import Quilting
from quasinat.defences.resize_and_pad import ResizeAndPad
from quasinat.defences.total_variation import TotalVariation
from quasinat.defences.wavelet import WaveletShrinkage
from quasinat.errors import UsageError, did_you_mean
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import load_classifier
from quasinat.sparse_coding import Auto


def tvm_quilting(bank: PatchBank, *, drop: float = 0.5, weight: float = 0.03, seed: Seed = 0) -> nn.Sequential:
    """Total-variation minimisation, then quilting (Guo et al. 2018, section 5; the paper's table 3)."""
    return nn.Sequential(TotalVariation(drop=drop, weight=weight, seed=seed), Quilting(bank, seed=seed))


def crop_ensemble(
    bank: PatchBank,
    *,
    crops: int = 30,
    fraction: float = 90 / 224,
    drop: float = 0.5,
    weight: float = 0.03,
    seed: Seed = 0,
) -> CropEnsemble:
    """Crop-Ens: random crops, each under TVM and quilting (the paper, section 5.2)."""
    then = tvm_quilting(bank, drop=drop, weight=weight, seed=seed)
    return CropEnsemble(then, crops=crops, fraction=fraction, seed=seed)


def crops(*, crops: int = 30, fraction: float = 90 / 224, seed: Seed = 0) -> CropEnsemble:
    """Random crops alone."""
    return CropEnsemble(None, crops=crops, fraction=fraction, seed=seed)


def stl(
    layer: SparseTransformationLayer, *, sparsity: float | None = None, tolerance: float | None = None
) -> SparseTransformationLayer:
    """The Sparse Transformation Layer itself, perhaps with another lambda, or solved by `Auto` to another tolerance."""
    changed = copy.copy(layer)  # shares its tensors
    if sparsity is not None:
        changed.sparsity = sparsity
    if tolerance is not None:
        changed.solver = Auto(tolerance=tolerance)
    return changed


DEFENCES: dict[str, Callable[..., nn.Module]] = {
    "stl": stl,
    "tvm": TotalVariation,
    "quilting": Quilting,
    "tvm-quilting": tvm_quilting,
    "crops": crops,
    "crop-ensemble": crop_ensemble,
    "pixel-deflection": PixelDeflection,
    "magnet": Magnet,
    "pixel-defend": PixelDefend,
    "d3": D3,
    "jpeg": Jpeg,
    "bit-depth": BitDepth,
    "median": MedianFilter,
    "mean": MeanFilter,
    "gaussian": GaussianFilter,
    "non-local-means": NonLocalMeans,
    "wavelet": WaveletShrinkage,
    "feature-squeezing": FeatureSqueezing,
    "resize-pad": ResizeAndPad,
}
"""Each takes what it has learned first, where `NEEDS` names a kind, and options of its own by name."""

NEEDS: dict[str, str] = {
    "stl": "layer",
    "quilting": "patch bank",
    "tvm-quilting": "patch bank",
    "crop-ensemble": "patch bank",
    "pixel-deflection": "classifier",
    "magnet": "magnet",
    "pixel-defend": "pixelcnn",
    "d3": "patch dictionary",
}
"""The kind of artefact that a defence needs."""

OPTIONAL = ("pixel-deflection",)
"""Those that work without theirs too."""

LOADERS: dict[str, Callable[[Path], Any]] = {
    "layer": SparseTransformationLayer.load,
    "classifier": load_classifier,
    "patch bank": load_patch_bank,
    "magnet": load_magnet,
    "pixelcnn": load_pixelcnn,
    "patch dictionary": load_patch_dictionary,
}
"""Reads an artefact of each kind."""

LEARNED_BY: dict[str, str] = {
    "layer": "`quasinat learn layer` makes it",
    "classifier": "`quasinat train vanilla` makes it",
    "patch bank": "`quasinat learn patch-bank` makes it",
    "magnet": "`quasinat learn magnet` makes it",
    "pixelcnn": "`quasinat learn pixelcnn` makes it",
    "patch dictionary": "`quasinat learn patch-dictionary` makes it",
}
"""How an artefact of each kind comes about, as a remedy."""


@dataclass(frozen=True, eq=False)
class MadeDefence:
    """A defence that was asked for by name; `channels` are those of what it has learned, if it has learned any."""

    name: str
    module: nn.Module
    channels: int | None


def defence_from(text: str, artefact: Path | None = None) -> MadeDefence:
    """The defence that `NAME` or `NAME:option=value,option=value` names.

    Args:
        text: a key of `DEFENCES`, and options of it.
        artefact: the file of what it has learned, for those in `NEEDS`.

    Raises:
        UsageError: an unknown defence or option, a value of another type, or an artefact that is missing or not wanted.
        InputError: the artefact cannot be read or is of another kind.

    Examples:
        >>> from quasinat.defences import defence_from
        >>> defence_from("jpeg:quality=50").module.quality
        50
    """
    name, _, tail = text.partition(":")
    if name not in DEFENCES:
        raise UsageError(f"unknown defence {name!r}", did_you_mean(name, list(DEFENCES)))
    make, kind = DEFENCES[name], NEEDS.get(name)
    options = _options(name, make, tail)
    if kind is None:
        if artefact is not None:
            raise UsageError(f"{name} has learned nothing", "leave --artefact out")
        return MadeDefence(name, make(**options), None)
    if artefact is None and name in OPTIONAL:
        return MadeDefence(name, make(**options), None)
    if artefact is None:
        raise UsageError(f"{name} needs a {kind}", f"name its file with --artefact; {LEARNED_BY[kind]}")
    learned = LOADERS[kind](artefact)
    channels = learned.filters.shape[-3] if isinstance(learned, SparseTransformationLayer) else learned.channels
    return MadeDefence(name, make(learned, **options), channels)


def _options(name: str, make: Callable[..., nn.Module], tail: str) -> dict[str, Any]:
    """The options in `option=value,option=value`, each of the type of its default."""
    known = {
        parameter.name: parameter.default
        for parameter in inspect.signature(make).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and isinstance(parameter.default, bool | int | float | str | None)
    }
    options: dict[str, Any] = {}
    for pair in filter(None, tail.split(",")):
        option, equals, value = pair.partition("=")
        if not equals or option not in known:
            remedy = f"{did_you_mean(option, sorted(known))} (as option=value)"
            raise UsageError(f"{name} has no option {pair!r}", remedy)
        options[option] = _value(f"{name}'s {option}", value, known[option])
    return options


def _value(what: str, text: str, default: Any) -> Any:
    """The text as a value of the default's type; where the default is `None`, as any number."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() in ("yes", "true", "no", "false"):
            return text.lower() in ("yes", "true")
        raise UsageError(f"{what} is {text!r}", "give yes or no")
    if text.lower() == "none" and (default is None or what.endswith(" seed")):
        return None
    for kind in (int, float) if default is None else (type(default),):
        try:
            return kind(text)
        except ValueError:
            continue
    raise UsageError(f"{what} is {text!r}", f"give a number, as the default {default}")
