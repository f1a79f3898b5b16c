"""The layer in front of somebody else's classifier: what it costs there, and how much of that an attack leaves."""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels, Logits, PerImageBool
from quasinat.attacks import Linf, pgd
from quasinat.defended import Defended
from quasinat.errors import UsageError
from quasinat.evaluation import accuracy_of, code_fingerprint, paired_difference, provenance, psnr
from quasinat.experiments.models import digest
from quasinat.experiments.own_images import OwnImages
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.strata_report import check_fit
from quasinat.interop.own_model import OwnModel
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Implicit

SCHEMA = 1
RESIZING = (
    "image files are scaled by their short side (Lanczos) and cropped in the centre; images of another size than the "
    "classifier's are brought to it (bilinear, antialiased); its own processor's resizing is not done"
)
CONFIDENT = 0.5  # top probability from which on a change of the answer is counted as one of a confident answer


@dataclass(frozen=True)
class DefendSettings:
    """How the two are compared.

    Attributes:
        attacked: images, of those that are shown, that the attack is made on; 0 for no attack.
        eps: radius of the attack in L-infinity, in pixels of [0, 1].
        steps: of the attack.
        batch_size: images at a time.
        device: "cpu" or "cuda".
        seed: of the attack's start.

    Raises:
        UsageError: a value out of range.
    """

    attacked: int = 0
    eps: float = 4 / 255
    steps: int = 20
    batch_size: int = 16
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("attacked", 0), ("steps", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}", f"give at least {least}")
        if not 0 < self.eps <= 1:
            raise UsageError(f"eps is {self.eps:g}", "give a radius above 0, of pixels in [0, 1]")


@dataclass(frozen=True)
class _Answers:
    """What a module says of the images, and how long it took for a batch."""

    logits: Logits
    seconds: float

    @property
    def classes(self) -> Labels:
        return self.logits.argmax(1)

    @property
    def confidence(self) -> torch.Tensor:
        return self.logits.softmax(1).amax(1)


def defend(
    model: OwnModel,
    layer: SparseTransformationLayer,
    given: OwnImages,
    settings: DefendSettings,
    *,
    named: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The card of `Defended(layer, model)`, as JSON holds it.

    `agreement` is the share of images whose class the layer does not change; where the labels are known, `accuracy`
    has the classifier's alone and behind the layer, and their paired difference. The attack, if any, is PGD on each of
    the two by its own true gradient (`Implicit`, the vote held fixed): on the images' labels, or where they are not
    known on the classifier's own answers.

    Args:
        model: images in [0, 1] to logits.
        layer: of as many channels.
        given: the images.
        named: what else the card says of the model and the layer, such as their files.

    Raises:
        InputError: the layer cannot code such images.
    """
    progress = progress or Silent()
    check_fit(layer, given.images)
    device = torch.device(settings.device)
    plain, defended = model.eval().to(device), Defended(layer.to(device), model).eval()
    with progress.task("answers without and with the layer", 2 * len(given.images)) as report:
        alone = _answers(plain, given.images, settings, lambda done: report(done))
        behind = _answers(defended, given.images, settings, lambda done: report(len(given.images) + done))
        projected = torch.cat([layer(part.to(device)).cpu() for part in given.images.split(settings.batch_size)])
    quality = psnr(projected, given.images)
    same = alone.classes == behind.classes
    sure = alone.confidence >= CONFIDENT
    return {
        "schema": SCHEMA,
        "model": {"fingerprint": digest(model), "classes": alone.logits.shape[1], **_wants(model)},
        "layer": {"fingerprint": digest(layer), **layer.settings()},
        **(named or {}),
        "images": {
            "n": len(given.images),
            "shape": list(given.images.shape[1:]),
            "labels": given.labelled,
            "left_out": list(given.left_out),
        },
        "agreement": asdict(accuracy_of(same)),
        "agreement_of_confident": asdict(accuracy_of(same[sure])) if bool(sure.any()) else None,
        "confidence": {"plain": float(alone.confidence.mean()), "defended": float(behind.confidence.mean())},
        "accuracy": _accuracy(alone.classes, behind.classes, given.labels),
        "psnr": float(quality[quality.isfinite()].mean()) if bool(quality.isfinite().any()) else None,
        "seconds_per_image": {"plain": alone.seconds, "defended": behind.seconds},
        "attack": _attacked(plain, defended, given, alone.classes, settings, progress),
        "settings": asdict(settings),
        "provenance": {**provenance(), "code": code_fingerprint()},
    }


def _wants(model: OwnModel) -> dict[str, Any]:
    return {
        "mean": model.normalise.mean.flatten().tolist(),
        "deviation": model.normalise.deviation.flatten().tolist(),
        "flipped": model.flipped,
        "size": None if model.size is None else list(model.size),
        "resizing": RESIZING,
        "parameters": sum(part.numel() for part in model.parameters()),
    }


@torch.no_grad()
def _answers(model: nn.Module, images: Images, settings: DefendSettings, report: Any) -> _Answers:
    """The logits, and the median over the batches of the seconds for an image."""
    logits, seconds = [], []
    for part in images.split(settings.batch_size):
        began = time.perf_counter()
        logits.append(model(part.to(settings.device)).cpu())
        seconds.append((time.perf_counter() - began) / len(part))
        report(sum(map(len, logits)))
    return _Answers(torch.cat(logits), sorted(seconds)[len(seconds) // 2])


def _accuracy(plain: Labels, defended: Labels, labels: Labels | None) -> dict[str, Any] | None:
    if labels is None:
        return None
    right, kept = plain == labels, defended == labels
    return {
        "plain": asdict(accuracy_of(right)),
        "defended": asdict(accuracy_of(kept)),
        "difference": asdict(paired_difference(kept, right)),
    }


def _attacked(
    plain: nn.Module,
    defended: Defended,
    given: OwnImages,
    answers: Labels,
    settings: DefendSettings,
    progress: Progress,
) -> dict[str, Any] | None:
    """The share of images that each of the two still gets right under PGD by its own true gradient."""
    if not settings.attacked:
        return None
    images = given.images[: settings.attacked]
    labels = (answers if given.labels is None else given.labels)[: settings.attacked]
    left = {}
    for name, module in (("plain", plain), ("defended", defended.with_adjoint(Implicit()))):
        with progress.task(f"PGD on the {name} classifier", len(images)) as report:
            left[name] = asdict(accuracy_of(_withstood(module, images, labels, settings, report)))
    judged = "the classifier's own answers" if given.labels is None else "labels"
    return {"attack": "pgd", "judged by": judged, "gradient": "Implicit; the stratum's vote held fixed", **left}


def _withstood(
    module: nn.Module, images: Images, labels: Labels, settings: DefendSettings, report: Any
) -> PerImageBool:
    parts: list[PerImageBool] = []
    for x, y in zip(images.split(settings.batch_size), labels.split(settings.batch_size), strict=True):
        x, y = x.to(settings.device), y.to(settings.device)
        found = pgd(module, x, y, budget=Linf(settings.eps), steps=settings.steps, seed=settings.seed)
        parts.append(~found.success.cpu())
        report(sum(map(len, parts)))
    return torch.cat(parts)
