"""Certified accuracy of models by randomised smoothing; every portion of the noise is counted once and kept."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels
from quasinat.data import Dataset
from quasinat.defended import Defended
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import (
    Certificates,
    accuracy_of,
    average_radius,
    certificate,
    certified_accuracy,
    code_fingerprint,
    largest_radius,
    noise_counts,
    predict,
    provenance,
)
from quasinat.evaluation.smoothing import Stream
from quasinat.experiments.models import digest
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.strata_report import check_fit, held_out
from quasinat.experiments.workspace import Step, Workspace
from quasinat.files import write_json, write_npz
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import VGG

SCHEMA = 1
BLOCK, PORTION = 10, 250  # images and noisy copies of each in a step: what an interruption loses at most
CURVE = 101  # points of the curve
FILES = ("certify.json", "certify.npz", "certify.md", "certify.png")
Streams = dict[Stream, Tensor]


@dataclass(frozen=True)
class CertifySettings:
    """Everything but models and images that decides the numbers; see `certify` for most.

    Attributes:
        images: how many test images, see `held_out`.
        device: of the models, "cpu" or "cuda".

    Raises:
        UsageError: a value out of its range, or too few samples to certify anything.
    """

    sigma: float = 0.25
    samples: int = 1000
    selection: int = 100
    alpha: float = 0.001
    images: int = 500
    batch_size: int = 250
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("samples", "selection", "images", "batch_size"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} {getattr(self, name)} is not above zero", "give a positive number")
        if not 0 < self.sigma < math.inf:
            raise UsageError(f"--sigma {self.sigma} is not a finite number above zero", "0.25 is usual")
        if not 0 < self.alpha < 1:
            raise UsageError(f"--alpha {self.alpha} is not between 0 and 1", "0.001 is usual")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is below zero", "give 0 or more")
        if largest_radius(self.sigma, self.samples, self.alpha) == 0:
            needed = math.floor(math.log2(1 / self.alpha)) + 1
            problem = f"--samples {self.samples} can certify nothing at --alpha {self.alpha:g}"
            raise UsageError(problem, f"give at least {needed}, better 1000")


def run_certify(
    rows: Mapping[str, nn.Module],
    data: Dataset,
    settings: CertifySettings,
    folder: Path,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Runs, or continues, the certification of every model in `folder`; writes `certify.json` and `certify.npz`.

    All models see the same images with the same noise. One that is interrupted loses a step: `BLOCK` images, `PORTION`
    noisy copies of each.

    Args:
        rows: models by name, images to logits; moved to the device and held in evaluation mode.
        data: its test images are certified.
        settings: of noise and certificates.
        folder: of the steps and the results.

    Returns:
        What `certify.json` holds. Of each row, `smoothed` is the accuracy of `predict`, `certified` that at a list of
        radii, `curve` that from 0 to the largest radius there can be; shares have `n` and a 95 % Wilson interval. The
        outcomes of each image are in `certify.npz`: `rows`, `label`, and `class` (-1 for an abstention), `radius`,
        `abstained`, `selection` and `estimation` (the counts), row by image.

    Raises:
        QuasinatError: models and images do not fit, or the folder is taken or cannot be written.
    """
    if not rows:
        raise UsageError("there is no model to certify", "pass at least one")
    progress = progress or Silent()
    test, labels = held_out(data, settings.images, settings.seed)
    models = {name: model.to(settings.device) for name, model in rows.items()}
    images = test.to(settings.device)
    for model in models.values():
        check_model(model, images[:1], len(data.classes))
    digests = {name: digest(model) for name, model in models.items()}
    mark = {"settings": asdict(settings), "rows": digests, "data": data.fingerprint(), "code": code_fingerprint()}
    workspace = Workspace(folder, mark, overwrite=overwrite)
    if overwrite:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    described: list[dict[str, Any]] = []
    outcomes: dict[str, tuple[Certificates, Streams]] = {}
    for place, (name, model) in enumerate(models.items()):
        total = _noisy_images(len(images), settings)
        with progress.task(f"certify {name}", total) as report:
            counts, seconds = _counts(workspace, place, model, images, len(data.classes), settings, report)
        proven = certificate(counts["selection"], counts["estimation"], settings.sigma, settings.alpha)
        row = {"name": name, **described_model(model), "sha256": digests[name]}
        row |= row_report(proven, counts["estimation"], labels, settings)
        described.append(row | {"seconds": round(seconds, 3), "noisy_images": total})
        outcomes[name] = (proven, counts)
    result = {
        "schema": SCHEMA,
        "settings": asdict(settings),
        "data": {"name": data.name, "description": data.description, "classes": len(data.classes), "n": len(test)},
        "largest_radius": largest_radius(settings.sigma, settings.samples, settings.alpha),
        "rows": described,
        "provenance": provenance(),
    }
    _write_outcomes(folder / "certify.npz", labels, outcomes)
    write_json(folder / "certify.json", result)
    return result


def row_report(proven: Certificates, estimation: Tensor, labels: Labels, settings: CertifySettings) -> dict[str, Any]:
    """The numbers of one model, from its certificates and the counts behind them, `B classes`."""
    top = largest_radius(settings.sigma, settings.samples, settings.alpha)
    radii = listed_radii(settings.sigma, top)
    certified = certified_accuracy(proven, labels, radii)
    grid = [top * i / (CURVE - 1) for i in range(CURVE)]
    curve = certified_accuracy(proven, labels, grid)
    return {
        "smoothed": asdict(accuracy_of(predict(estimation, settings.alpha) == labels)),
        "abstained": asdict(accuracy_of(proven.abstained)),
        "average_radius": average_radius(proven, labels),
        "certified": [{"radius": r, **asdict(share)} for r, share in zip(radii, certified, strict=True)],
        "curve": {
            "radius": grid,
            **{name: [getattr(share, name) for share in curve] for name in ("value", "low", "high")},
        },
    }


def listed_radii(sigma: float, largest: float) -> list[float]:
    """The radii of the table: 0, sigma / 2, sigma, ... below the largest one."""
    return [i * sigma / 2 for i in range(math.ceil(2 * largest / sigma))]


def check_model(model: nn.Module, image: Images, classes: int) -> None:
    """Raises a `QuasinatError` where such images cannot be certified with the model, before anything is computed."""
    for layer in _layers(model):
        check_fit(layer, image)
        if layer.refine and layer.refine_over == "batch":
            problem = "the layer refines its filters over a batch: T(x) is no function of x alone"
            raise UsageError(problem, 'certify one with refine_over="image", or without refinement')
    for module in model.modules():
        if isinstance(module, VGG) and module.channels != image.shape[1]:
            problem = f"the classifier takes {module.channels} channels and the images have {image.shape[1]}"
            raise InputError(problem, "convert the images, or pass a classifier of images like these")
    noise_counts(model, image, sigma=1.0, samples=1, classes=classes)


def described_model(model: nn.Module) -> dict[str, Any]:
    """What a reader wants to know of a model: its classifier and its layer, if it has one."""
    classifier = model.classifier if isinstance(model, Defended) else model
    named = classifier.plan if isinstance(classifier, VGG) else type(classifier).__name__
    described: dict[str, Any] = {"classifier": named, "layer": None}
    names = ("dictionaries", "filters", "channels", "filter_size")
    for layer in _layers(model):
        shape = dict(zip(names, layer.filters.shape, strict=False))
        described["layer"] = shape | {"sparsity": layer.sparsity, "split": layer.split}
    return described


def _layers(model: nn.Module) -> list[SparseTransformationLayer]:
    return [module for module in model.modules() if isinstance(module, SparseTransformationLayer)]


@dataclass(frozen=True)
class Portion:
    """One step: noisy copies `start` to `start + samples` of the images from `first` on, of one stream."""

    stream: Stream
    first: int
    start: int
    samples: int

    def counted(self, model: nn.Module, images: Images, classes: int, settings: CertifySettings) -> Step:
        counts = noise_counts(
            model,
            images[self.first : self.first + BLOCK],
            sigma=settings.sigma,
            samples=self.samples,
            classes=classes,
            batch_size=settings.batch_size,
            seed=settings.seed,
            start=self.start,
            first=self.first,
            stream=self.stream,
        )
        return {"counts": counts}, {}


def _portions(images: int, settings: CertifySettings) -> Iterator[Portion]:
    streams: tuple[tuple[Stream, int], ...] = (("selection", settings.selection), ("estimation", settings.samples))
    for first in range(0, images, BLOCK):
        for stream, samples in streams:
            for start in range(0, samples, PORTION):
                yield Portion(stream, first, start, min(PORTION, samples - start))


def _counts(
    workspace: Workspace,
    place: int,
    model: nn.Module,
    images: Images,
    classes: int,
    settings: CertifySettings,
    report: Callable[[int, str], None],
) -> tuple[Streams, float]:
    """The counts of all images by stream, from the steps that are there and those that are missing; their seconds."""
    counts: Streams = {stream: torch.zeros(len(images), classes, dtype=torch.int64) for stream in get_args(Stream)}
    done, seconds, tenths, total = 0, 0.0, 0, _noisy_images(len(images), settings)
    for portion in _portions(len(images), settings):
        name = f"{place:02d}-{portion.stream}-{portion.first:06d}-{portion.start:07d}"
        tensors, values = workspace.step(name, partial(portion.counted, model, images, classes, settings))
        counts[portion.stream][portion.first : portion.first + BLOCK] += tensors["counts"]
        seconds += values["seconds"]
        done += portion.samples * len(tensors["counts"])
        report(done, f"{done} of {total} noisy images" if 10 * done // total > tenths else "")
        tenths = 10 * done // total
    return counts, seconds


def _noisy_images(images: int, settings: CertifySettings) -> int:
    return images * (settings.selection + settings.samples)


def _write_outcomes(path: Path, labels: Labels, outcomes: Mapping[str, tuple[Certificates, Streams]]) -> None:
    """Per-image outcomes of every row, as plain arrays."""
    import numpy as np

    proven, counts = zip(*outcomes.values(), strict=True)
    arrays: dict[str, Any] = {
        "rows": np.array(list(outcomes)),
        "label": labels,
        "class": torch.stack([each.classes for each in proven]),
        "radius": torch.stack([each.radii for each in proven]),
        "abstained": torch.stack([each.abstained for each in proven]),
        **{stream: torch.stack([each[stream] for each in counts]) for stream in get_args(Stream)},
    }
    write_npz(path, arrays)
