"""One cell of a table: which test images a row's defence gets right under a column's attack, by the table's threat."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, PerImage, PerImageBool
from quasinat.attacks import Expectation
from quasinat.defences import Detector, RegionVote
from quasinat.defences.transformation import Views, with_seed
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.experiments.columns import CLEAN, answers
from quasinat.experiments.measure import mean_psnr
from quasinat.experiments.table_networks import NETWORKS
from quasinat.experiments.table_parts import Parts
from quasinat.experiments.table_spec import Row, known_rows
from quasinat.networks import Thermometer, with_backward
from quasinat.sparse_coding import Identity

ATTACKED_VOTES = 20  # of a region, in each draw that an attack on it sees


@dataclass(frozen=True, eq=False)
class Cell:
    """Whether each image is in good hands, and whether it was flagged where there is a detector.

    `right` is: classified right and, if the image is clean, not flagged; an attacked image that is flagged counts too.
    `confidence` is the probability that the classifier gives its answer; `psnr`, in dB, is the mean between what a
    transformation makes of the attacked images and the clean ones (the paper, section 5.4).
    """

    right: PerImageBool
    confidence: PerImage
    flagged: PerImageBool | None = None
    psnr: float | None = None


def cell(parts: Parts, row: Row, column: str, threat: str) -> Cell:
    """The outcome of each test image.

    Raises:
        UsageError: a row that has no meaning under the threat: a retrained network where none is.
    """
    if threat == "white-box":
        return _white_box(parts, row, column)
    images, labels = parts.adversarial(column), parts.labels()
    if row.network is not None:
        model, detector = NETWORKS[row.network](parts)
        return judged(model, detector, images, parts, clean=column == CLEAN)
    if row.control_of is not None:
        if threat == "vanilla":
            raise UsageError(f"{row.label} is a retrained network", "see the table of retrained classifiers")
        return Cell(*answers(parts.retrained(known_rows()[row.control_of]), images, labels, parts.device))
    if row.defence is None:
        return Cell(*answers(parts.vanilla(), images, labels, parts.device))
    classifier = parts.vanilla() if threat == "vanilla" else parts.retrained(row)
    transform = parts.transform(row)
    if isinstance(transform.module, Views):
        return Cell(*answers(Defended(transform.module, classifier).eval(), images, labels, parts.device))
    seen, clean = parts.transformed(row, column, images), parts.data.test_images
    psnr = mean_psnr(seen, clean) if seen.shape == clean.shape else None  # random resizing makes them larger
    return Cell(*answers(classifier, seen, labels, parts.device), psnr=psnr)


def _white_box(parts: Parts, row: Row, column: str) -> Cell:
    """The attack sees the defended module: straight through a transformation, in expectation over its draws.

    Where there are several ways to differentiate it, an image is in good hands if it is against each of them.
    """
    count = min(parts.settings.white_box_images, len(parts.labels()))
    images, labels = parts.data.test_images[:count], parts.labels()[:count]
    model, detector = _defended(parts, row)
    cells = []
    for way, seen in _ways(model).items():
        made = parts.attacked(row.key + way, column, partial(_attackable, parts, row, seen), images, labels)
        cells.append(judged(model, detector, made, parts, clean=column == CLEAN))
    return reduce(_worse, cells)


def _ways(model: nn.Module) -> dict[str, nn.Module]:
    """The models that an attack differentiates, by what their names add to the row's."""
    if not any(isinstance(part, Thermometer) for part in model.modules()):
        return {"": model}
    return {"": with_backward(model, "smoothed"), "-nearest": with_backward(model, "nearest")}


def _worse(one: Cell, other: Cell) -> Cell:
    flagged = None if one.flagged is None or other.flagged is None else one.flagged & other.flagged
    return Cell(one.right & other.right, torch.maximum(one.confidence, other.confidence), flagged)


def _defended(parts: Parts, row: Row) -> tuple[nn.Module, Detector | None]:
    if row.network is not None:
        return NETWORKS[row.network](parts)
    if row.control_of is not None:
        return parts.retrained(known_rows()[row.control_of]), None
    if row.defence is None:
        return parts.vanilla(), None
    return Defended(parts.transform(row).module, parts.retrained(row)).eval(), None


def _attackable(parts: Parts, row: Row, model: nn.Module) -> nn.Module:
    """The module as the attack differentiates it: truly where that is possible, else straight through."""
    named: nn.Module = model
    exact = isinstance(model, Defended) and getattr(model.transform, "differentiable", False)
    if isinstance(model, Defended) and (
        not exact or isinstance(model.transform, Views)
    ):  # of views, what is behind them
        named = model.with_adjoint(Identity()).eval()
    if isinstance(model, RegionVote):
        named = model.softened(votes=min(model.votes, ATTACKED_VOTES))
    if not draws(model):
        return named
    return Expectation(with_seed(named, None), parts.settings.expectation, seed=parts.settings.seed)


def draws(model: nn.Module) -> bool:
    """Whether any part of a module draws at random."""
    return any("seed" in vars(part) for part in model.modules())


def judged(model: nn.Module, detector: Detector | None, images: Images, parts: Parts, *, clean: bool) -> Cell:
    """The outcomes of a model, with its detector in front where it has one."""
    labels = parts.labels()[: len(images)]
    hits, confidence = answers(model, images, labels, parts.device)
    if detector is None:
        return Cell(hits, confidence)
    flagged = _in_batches(detector, images, parts.device)
    return Cell(hits & ~flagged if clean else hits | flagged, confidence, flagged)


@torch.no_grad()
def _in_batches(function: Callable[[Images], Tensor], images: Images, device: str) -> Tensor:
    return torch.cat([function(part.to(device)).cpu() for part in images.split(100)])
