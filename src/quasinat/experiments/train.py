"""A classifier from an image set to a file, by any of the trainings; it can be interrupted."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.data import Dataset, subset
from quasinat.data.draws import generator_for
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import Accuracy, accuracy, code_fingerprint, provenance
from quasinat.experiments.devices import device_named
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.strata_report import image_set
from quasinat.experiments.train_settings import TrainSettings
from quasinat.experiments.trainings import TRAININGS
from quasinat.experiments.transforms import NamedTransform
from quasinat.experiments.workspace import Step, Workspace
from quasinat.networks import PLANS, VGG, save_classifier, vgg
from quasinat.parallel import lead_first, leads, mine, ranks, restarted, wait_for_all
from quasinat.training.checkpoint import digest

CHUNK = 256  # images projected together: what an interruption loses of them at most


@dataclass(frozen=True, eq=False)
class Trained:
    """A training's outcome: the classifier in eval mode on the CPU, and its accuracy on the clean test images.

    Attributes:
        test: for `retrained`, of T(x).
        losses: the mean training loss of each epoch.
        teacher_losses: of `distilled`: its teacher's.
    """

    network: VGG
    test: Accuracy
    losses: tuple[float, ...]
    device: str
    teacher_losses: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The numbers, as JSON holds them."""
        taught = {"teacher_losses": list(self.teacher_losses)} if self.teacher_losses else {}
        return {"test": asdict(self.test), "losses": list(self.losses), **taught, "device": self.device}


def train(
    settings: TrainSettings,
    out: Path,
    *,
    transform: NamedTransform | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Trained:
    """Trains a classifier and writes it to `out`, with a card that says how; `load_classifier` reads it.

    What an interruption would lose is kept in `OUT.training` until the file is there: T of the training images, in
    pieces, and the state after every epoch. The same call goes on from there; on a CPU the weights are, to the bit,
    those of a training that was not interrupted. No test image has a part in them.

    Args:
        settings: what to train.
        out: the file to write.
        transform: of the images, for `retrained` and only for that; see `layer_transform`, `defence_transform`.
        device: "auto", "cpu" or "cuda".
        progress: hears of each step.
        overwrite: train again, from the start, where `out` exists.

    Raises:
        UsageError: `out` exists, the device is not there, the transformation is missing or not wanted, or what was
            left of an interrupted training is of another one.
        InputError: images, network and transformation do not fit each other, or one cannot be read.
    """
    _check_request(settings, out, transform, overwrite)
    where, progress = device_named(device), progress or Silent()
    transform = transform and transform.to(where)
    data = image_set(settings.images())
    images, labels = _training_half(data, settings)
    _check_size(settings.network, images)
    made = {
        "data": data.name,
        "images": len(images),
        "fingerprint": digest(images),
        "classes": list(data.classes),
        "settings": settings.as_json(),
        "transform": transform and transform.identity,
        "device": where,
    }
    mark = {**made, "whole": data.fingerprint(), "code": code_fingerprint()}
    test = data.test_images
    if transform is not None:
        transform.check(images)
    with lead_first():
        workspace = Workspace(_beside(out), mark, overwrite=overwrite and leads() and not restarted())
    if transform is not None:
        project = partial(_projected, workspace, transform, settings, progress)
        images = torch.cat([project("training", images, copy=copy) for copy in range(settings.copies)])
        labels = labels.repeat(settings.copies)
    network, losses = _fitted(settings, len(data.classes), images.to(where), labels.to(where), workspace, progress)
    if transform is not None:
        test = project("test", test)
    measured = accuracy(network, test.to(where), data.test_labels.to(where))
    network = network.cpu()
    save_classifier(out, network, {**made, **losses, "test": asdict(measured), **provenance()})
    if leads():
        shutil.rmtree(workspace.folder, ignore_errors=True)
    return Trained(network, measured, device=where, **{name: tuple(values) for name, values in losses.items()})


def check_wanted(kind: str, option: str | None) -> None:
    """Refuses a kind of training that lacks a transformation, or has one that it does not want.

    Args:
        option: that names the transformation, if there is one.

    Raises:
        UsageError: see above.
    """
    if kind == "retrained" and option is None:
        raise UsageError("the training 'retrained' needs a transformation", "name one with --layer or --defence")
    if kind != "retrained" and option is not None:
        raise UsageError(f"{option} is no option of the training {kind!r}", "leave it out, or train retrained")


def _check_request(settings: TrainSettings, out: Path, transform: NamedTransform | None, overwrite: bool) -> None:
    """Refuses what needs no data to be refused."""
    check_wanted(settings.kind, None if transform is None else "--layer" if transform.name == "layer" else "--defence")
    if settings.copies > 1 and not settings.noise and transform is not None and not transform.randomised:
        raise UsageError(f"--copies {settings.copies} would all be equal", "give a --noise as well")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "choose another --out")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists", "choose another --out, or pass --overwrite")
    for path in transform.files if transform else ():
        if _beside(out).resolve() in path.resolve().parents:
            raise UsageError(f"{path} lies in {_beside(out)}, which will be removed", "choose another --out")
        if path.resolve() == out.resolve():
            raise UsageError(f"{out} is the {transform and transform.name}", "choose another --out")


def _beside(out: Path) -> Path:
    """The folder of what an interrupted training needs to go on."""
    return out.with_name(out.name + ".training")


def _training_half(data: Dataset, settings: TrainSettings) -> tuple[Images, Labels]:
    """The training images and labels, cut to the asked number of each class."""
    if settings.train_per_class is None:
        return data.train_images, data.train_labels
    cut = subset(data, settings.train_per_class, 1, seed=settings.seed)
    return cut.train_images, cut.train_labels


def _check_size(network: str, images: Images) -> None:
    side, least = min(images.shape[-2:]), 2 ** PLANS[network].count("M")
    if side < least:
        problem = f"images of {side} pixels are too small for {network}, which needs {least}"
        raise InputError(problem, "choose larger images or another --network")


def _projected(
    workspace: Workspace,
    transform: NamedTransform,
    settings: TrainSettings,
    progress: Progress,
    name: str,
    images: Images,
    *,
    copy: int | None = None,
) -> Images:
    """T of a set, on the CPU, each piece of it computed once; of a numbered copy with noise before T.

    Every process computes a share of the pieces and then reads them all.
    """
    title = f"project the {name} images" + (f", copy {copy + 1}" if copy else "")
    noise = 0.0 if copy is None else settings.noise

    def step(start: int) -> Images:
        def compute() -> Step:
            piece = images[start : start + CHUNK]
            if noise:
                generator = generator_for(settings.seed, "noise", str(copy), str(start))
                piece = (piece + noise * torch.randn(piece.shape, generator=generator)).clamp(0, 1)
            return {"images": transform.project(piece, copy=copy or 0)}, {}

        return workspace.step(f"{name}-{copy or 0}-{start:08}", compute)[0]["images"]

    starts = range(0, len(images), CHUNK)
    with progress.task(title, len(images)) as report:
        for done, start in enumerate(mine(starts), 1):
            step(start)
            report(min(len(images), done * ranks() * CHUNK))
        wait_for_all()
        return torch.cat([step(start) for start in starts])


def _fitted(
    settings: TrainSettings, classes: int, images: Images, labels: Labels, workspace: Workspace, progress: Progress
) -> tuple[VGG, dict[str, list[float]]]:
    """The classifier, trained where the images are; the mean loss of each epoch as `losses`, and `teacher_losses`."""
    losses: dict[str, list[float]] = {}

    def fit(
        train: Callable[..., nn.Module],
        *,
        role: str = "classifier",
        network: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> VGG:
        built = vgg(
            settings.network, classes=classes, channels=images.shape[1], seed=settings.seed, **(network or {})
        ).to(images.device)
        heard = losses.setdefault("teacher_losses" if role == "teacher" else "losses", [])
        with progress.task(f"train the {settings.kind} {role}", settings.epochs) as report:

            def on_epoch(epoch: int, loss: float) -> None:
                heard.append(loss)
                report(epoch, f"epoch {epoch} of {settings.epochs}, loss {loss:.4f}")

            train(
                built,
                images,
                labels,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                noise=0.0 if settings.kind == "retrained" else settings.noise,  # it is in front of T there
                seed=settings.seed,
                on_epoch=on_epoch,
                checkpoint=workspace.steps / f"{'training' if role == 'classifier' else role}.safetensors",
                **options,
            )
        return built

    return TRAININGS[settings.kind](fit, **settings.own), losses
