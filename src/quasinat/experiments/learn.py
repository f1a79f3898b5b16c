"""Learning the quasi-natural space from training images, step by step or all at once; every step can be interrupted.

autoencoder -> strata -> dictionaries -> layer
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from quasinat.data.training import TrainingImages
from quasinat.errors import UsageError, did_you_mean
from quasinat.evaluation import code_fingerprint
from quasinat.experiments.progress import Progress
from quasinat.files import read_json, write_json
from quasinat.layer import Normalise, SparseTransformationLayer
from quasinat.parallel import lead_first, leads, restarted
from quasinat.sparse_coding import LEARNERS, Auto, Constraint, Dictionary, LearningState
from quasinat.strata import DenoisingAutoencoder, Split, Strata, fit_strata, learn_dictionaries, train_autoencoder


@dataclass(frozen=True)
class AutoencoderSettings:
    """Of the denoising autoencoder; see `train_autoencoder`."""

    noise: float = 0.15
    width: int = 32
    epochs: int = 10
    seed: int = 0


@dataclass(frozen=True)
class StrataSettings:
    """Of clusters and vote; see `fit_strata`."""

    count: int = 4
    neighbours: int = 5
    components: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class DictionarySettings:
    """Of the dictionaries; see `learn_dictionaries`.

    Raises:
        UsageError: a value that learning would refuse, before it has begun.
    """

    filters: int = 64
    size: int = 8
    sparsity: float = 0.2
    split: Split = "tikhonov"
    constraint: Constraint = "joint"
    zero_mean: bool = False
    passes: int = 3
    tolerance: float = 1e-3
    learner: str = "auto"
    images_each: int | None = None
    held_out: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        known = {"split": get_args(Split), "constraint": get_args(Constraint), "learner": ("auto", *LEARNERS)}
        for name, choices in known.items():
            value = getattr(self, name)
            if value not in choices:
                raise UsageError(f"unknown {name} {value!r}", did_you_mean(str(value), list(choices)))
        for name, usual in (("sparsity", 0.2), ("tolerance", 1e-3)):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} {getattr(self, name)} is not a finite number >= 0", f"{usual} is usual")


@dataclass(frozen=True)
class Learning:
    """Training images, a folder for what an interrupted step needs to go on, and how to report."""

    data: TrainingImages
    work: Path
    progress: Progress

    def autoencoder(self, settings: AutoencoderSettings) -> DenoisingAutoencoder:
        """Trains the autoencoder; interrupted, it loses at most one epoch."""
        with self.progress.task("train the denoising autoencoder", settings.epochs) as report:
            network = train_autoencoder(
                self.data.images,
                noise=settings.noise,
                width=settings.width,
                epochs=settings.epochs,
                seed=settings.seed,
                checkpoint=self.work / "autoencoder.safetensors",
                on_epoch=lambda epoch, loss: report(epoch, f"mean squared error {loss:.5f}"),
            )
        network.card = {"provenance": self.provenance(autoencoder=asdict(settings))}
        return network

    def strata(self, settings: StrataSettings, autoencoder: DenoisingAutoencoder) -> Strata:
        """Clusters the training latents."""
        with self.progress.task("cluster the latents", 1) as report:
            strata = fit_strata(
                self.data.images,
                count=settings.count,
                neighbours=settings.neighbours,
                components=settings.components,
                seed=settings.seed,
                autoencoder=autoencoder,
            )
            sizes = torch.bincount(strata.labels, minlength=strata.count).tolist()
            report(1, "images in each stratum: " + ", ".join(map(str, sizes)))
        made = self.provenance(strata=asdict(settings), sizes=sizes)
        strata.card = {"provenance": autoencoder.card.get("provenance", {}) | made}
        return strata

    def dictionaries(self, settings: DictionarySettings, strata: Strata | None) -> tuple[Dictionary, ...]:
        """Learns the dictionaries; interrupted, they lose at most one pass of one of them."""
        count = 1 if strata is None else strata.count
        each = settings.images_each or len(self.data.images)
        total = settings.passes * min(each * count, len(self.data.images))
        read = 0
        with self.progress.task("learn the dictionaries", total) as report:

            def on_read(stratum: int, images: int) -> None:
                nonlocal read
                read += images
                report(read)

            def on_pass(stratum: int, state: LearningState) -> None:
                report(read, _describe(stratum, count, state))

            return learn_dictionaries(
                self.data.images, strata, checkpoint=self.work, on_read=on_read, on_pass=on_pass, **asdict(settings)
            )

    def layer(
        self,
        strata: Strata | None,
        dictionaries: tuple[Dictionary, ...],
        settings: DictionarySettings,
        *,
        normalise: Normalise = "clip",
        refine: int = 0,
        tolerance: float = 1e-2,
    ) -> SparseTransformationLayer:
        """The layer of strata and dictionaries, with how it was made."""
        made = self.provenance(dictionaries=asdict(settings))
        past = {} if strata is None else strata.card.get("provenance", {})
        return SparseTransformationLayer(
            strata,
            dictionaries,
            settings.sparsity,
            split=settings.split,
            normalise=normalise,
            refine=refine,
            solver=Auto(tolerance=tolerance),
            provenance=past | made,
        )

    def provenance(self, **more: Any) -> dict[str, Any]:
        """Data, code and settings, for an artefact's card."""
        return {**self.data.provenance(), "code": code_fingerprint(), **more}

    def finish(self) -> None:
        """Removes what an interrupted step would have needed."""
        if leads():
            shutil.rmtree(self.work, ignore_errors=True)


def open_learning(
    read: Callable[[], TrainingImages], out: Path, progress: Progress, *, overwrite: bool = False
) -> Learning:
    """Prepares to learn the artefact `out`; what an interrupted run left beside it is continued.

    Args:
        read: reads the training images, once it is known that `out` may be written.

    Raises:
        UsageError: `out` exists, or what was left is of other code.
    """
    work = out.with_name(out.name + ".learning")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists", "choose another --out, or pass --overwrite")
    with lead_first():
        if overwrite and leads() and not restarted():
            shutil.rmtree(work, ignore_errors=True)
        code, mark = {"code": code_fingerprint()}, work / "code.json"
        if work.exists() and (not mark.exists() or read_json(mark) != code):
            raise UsageError(f"{work} was left by another version of the code", "delete it to start afresh")
        data = read()
        write_json(mark, code)
    return Learning(data, work, progress)


def _describe(stratum: int, count: int, state: LearningState) -> str:
    which = f"dictionary {stratum + 1} of {count}, " if count > 1 else ""
    parts = [f"{which}pass {state.passes}"]
    if state.curve:
        parts.append(f"objective {state.curve[-1]:.4f}")
    if state.held_out:
        parts.append(f"held out {state.held_out[-1]:.4f}")
    if state.reseeded:
        parts.append(f"{state.reseeded} filters replaced")
    return ", ".join(parts)
