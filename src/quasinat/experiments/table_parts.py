"""What the cells of the tables share, made once and kept: classifiers, adversarial images, what defences have learned.

All tables of an image set and a preset share one folder, so that a table's rows meet the same vanilla classifier and
the same adversarial images, and two tables do not make them twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quasinat.arrays import Images, Labels
from quasinat.attacks import Dissimilarity, held_to
from quasinat.data import Dataset
from quasinat.errors import UsageError
from quasinat.evaluation import CORRUPTIONS, corrupted
from quasinat.experiments.columns import CLEAN, answers, batch_size
from quasinat.experiments.kept_attacks import in_pieces
from quasinat.experiments.matching import matching
from quasinat.experiments.mean_columns import is_mean, moved_on_average, scaled
from quasinat.experiments.progress import Progress
from quasinat.experiments.table_attacks import column_attack
from quasinat.experiments.table_classifiers import CLASSIFIERS
from quasinat.experiments.table_learned import LEARNED
from quasinat.experiments.table_settings import TableSettings
from quasinat.experiments.table_spec import Row
from quasinat.experiments.transforms import NamedTransform, defence_transform
from quasinat.experiments.workspace import Step, Workspace
from quasinat.files import once
from quasinat.networks import Classifier, load_classifier, save_classifier
from quasinat.training import train_classifier

STEPPED = ("bim",)  # attacks that take another way at another budget; the others go less far on the same one
VANILLA = "vanilla"
TRAIN = "train"
CHUNK = 100  # images transformed together: what an interruption loses of them at most
ATTACKED = 5  # batches of images attacked together, likewise
WHITE_BOX = 50  # images attacked together behind a defence, whose gradient may cost seconds an image
KEPT_PIXELS = 128 * 128
ENOUGH = 5e-4  # of an accuracy that is matched: half of an image in a thousand
Train = Callable[..., nn.Module]


@dataclass(eq=False)
class Parts:
    """The parts of one image set at one size of run.

    Attributes:
        data: the images, cut to the settings' numbers.
        workspace: keeps what was made.
        device: where networks and attacks run.
        network: a key of `CLASSIFIERS`.
        weights: the file that some of them start from.
    """

    data: Dataset
    settings: TableSettings
    workspace: Workspace
    progress: Progress
    device: str = "cpu"
    network: str = "vgg"
    weights: Path | None = None
    _loaded: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.data.classes)

    def labels(self) -> Labels:
        """Of the test images."""
        return self.data.test_labels

    def vanilla(self) -> Classifier:
        """The undefended classifier, which the gray-box attacks are made on."""
        return self.classifier(VANILLA, lambda: self.data.train_images)

    def classifier(
        self,
        name: str,
        images: Callable[[], Images],
        train: Train = train_classifier,
        *,
        epochs: int | None = None,
        network: Mapping[str, Any] | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> Classifier:
        """The classifier of that name, trained once; interrupted, the training loses at most an epoch.

        Args:
            images: of the training half, asked only where it has to be trained.
            train: how; takes `network, images, labels` and the options of `train_classifier`.
            epochs: unless given, those that such a network is trained with.
            network: options of `vgg` besides the settings'.
            seed: of weights and batches; the settings' if none is given.
            options: more of `train`.

        Raises:
            UsageError: it would have to be trained, and the image set's network cannot be, or not so.
        """
        if name in self._loaded:
            found: Classifier = self._loaded[name]
            return found
        path, settings = self._file("networks", name), self.settings

        def make() -> None:
            drawn = settings.seed if seed is None else seed
            start = CLASSIFIERS[self.network](self.data, settings, self.weights, drawn, network or {})
            if start.epochs == 0 and name != VANILLA:
                raise UsageError("the only network of this table is the one that is attacked", "leave the row out")
            blank = start.network
            if start.epochs:
                number, more = epochs or start.epochs, {**start.options, **options}
                self._train(name, blank, images(), partial(train, epochs=number, seed=drawn, **more), number)
            save_classifier(path, blank.cpu(), {"name": name, "settings": settings.as_json()})
            self._checkpoint(name).unlink(missing_ok=True)

        once(path, make)
        self._loaded[name] = load_classifier(path).to(self.device)
        made: Classifier = self._loaded[name]
        return made

    def _train(self, name: str, network: nn.Module, images: Images, train: Train, epochs: int) -> None:
        """Trains a network in place, with a bar and a checkpoint."""
        labels = self.data.train_labels.to(self.device)
        with self.progress.task(f"train the classifier {name}", epochs) as report:
            train(
                network.to(self.device),
                images.to(self.device),
                labels,
                checkpoint=self._checkpoint(name),
                on_epoch=lambda epoch, loss: report(epoch, f"loss {loss:.4f}"),
            )

    def _checkpoint(self, name: str) -> Path:
        return self._file("networks", name).with_suffix(".checkpoint")

    def learned(self, kind: str) -> Path:
        """The file of what a defence learns from the training images, learned once.

        Args:
            kind: a key of `LEARNED`, perhaps with one of the settings in another way, as "layer:strata=8".
        """
        path = self._file("learned", kind.replace(" ", "-").replace(":", "-"))
        if kind == "classifier":
            self.vanilla()
            return self._file("networks", VANILLA)

        def make() -> None:
            what, _, option = kind.partition(":")
            name, _, value = option.partition("=")
            changed: dict[str, Any] = {name: int(value)} if option else {}
            settings = replace(self.settings, **changed)
            LEARNED[what](self.data.train_images, settings, path, self.progress)

        once(path, make)
        return path

    def transform(self, row: Row) -> NamedTransform:
        """The transformation of a row that has one."""
        assert row.defence is not None
        key = f"transform {row.key}"
        if key not in self._loaded:
            text, separator = row.defence, "," if ":" in row.defence else ":"
            if row.defence in ("crops", "crop-ensemble"):
                text += f"{separator}crops={self.settings.crops}"
            artefact = None if row.learns is None else self.learned(row.learns)
            self._loaded[key] = defence_transform(text, artefact).to(self.device)
        found: NamedTransform = self._loaded[key]
        return found

    def retrained(self, row: Row) -> Classifier:
        """The classifier that was trained on a transformation's images (the paper, section 3.5)."""
        images = partial(self.transformed, row, TRAIN, self.data.train_images)
        made = self.classifier(f"on-{row.key}", images, epochs=row.epochs)
        self.workspace.forget(_piece(row, TRAIN))
        return made

    def transformed(self, row: Row, name: str, images: Images) -> torch.Tensor:
        """T of a named set, on the CPU, each piece of it computed once; random resizing makes the images larger.

        Large images of a test set are not kept once they are there: a table asks for them once, and they fill disks.
        """
        transform, parts = self.transform(row), []
        with self.progress.task(f"{row.label} of the set {name}", len(images)) as report:
            for start in range(0, len(images), CHUNK):
                piece = images[start : start + CHUNK]
                compute = partial(_projected, transform, piece)
                parts.append(self.workspace.step(f"{_piece(row, name)}{start:06}", compute)[0]["images"])
                report(start + len(piece))
        if name != TRAIN and images[0, 0].numel() > KEPT_PIXELS:
            self.workspace.forget(_piece(row, name))
        return torch.cat(parts)

    def adversarial(self, column: str) -> Images:
        """The test images under a column's attack on the vanilla classifier, or corruption; themselves if clean."""
        stated, _, target = column.partition("@")
        if target:
            return self.matched(stated, float(target))[0]
        name, _, severity = column.rpartition("-")
        if name in CORRUPTIONS:
            return self._corrupted(name, int(severity))
        return self.attacked(VANILLA, column, self.vanilla, self.data.test_images, self.labels())

    def _corrupted(self, name: str, severity: int) -> Images:
        """The test images with a corruption, made once."""

        def compute() -> Step:
            return {"images": corrupted(self.data.test_images, name, severity, seed=self.settings.seed)}, {}

        return self.workspace.step(f"{name}-{severity}-on-vanilla", compute)[0]["images"]

    def matched(self, column: str, target: float) -> tuple[Images, dict[str, Any]]:
        """The test images under an attack that leaves the vanilla classifier the target, see `matching`.

        Returns:
            The images, and `share` and `accuracy` of `Matched`.
        """
        clean, labels = self.data.test_images, self.labels()
        name, _, size = column.rpartition("-")
        tried = []

        def at(share: float) -> Images:
            if share in (0, 1):
                return clean if share == 0 else self.adversarial(column)
            if is_mean(column):
                return scaled(clean, self.adversarial(column), share)
            if name in STEPPED:
                tried.append(f"{name}-{share * float(size)}")
                return self.attacked(VANILLA, tried[-1], self.vanilla, clean, labels)
            return held_to(clean, self.adversarial(column), Dissimilarity(share * float(size)))

        def accuracy(images: Images) -> float:
            return float(answers(self.vanilla(), images, labels, self.device)[0].double().mean())

        def compute() -> Step:
            with self.progress.task(f"{column} brought to {target:.1%}", 1):
                found = matching(at, accuracy, target, enough=max(0.5 / len(labels), ENOUGH))
            return {"images": found.images}, {"share": found.share, "accuracy": found.accuracy}

        tensors, values = self.workspace.step(f"{column}@{target}-on-vanilla", compute)
        for each in tried:
            self.workspace.forget(f"{each}-on-{VANILLA}")
        return tensors["images"], values

    def attacked(
        self, name: str, column: str, model: Callable[[], nn.Module], images: Images, labels: Labels
    ) -> Images:
        """Images under a column's attack on a model, on the CPU, made once, piece by piece: see `in_pieces`.

        Args:
            name: of the model.
            model: asked only where the images are not there yet.
        """
        if column == CLEAN:
            return images

        def keep(piece: str, run: Callable[[], Step]) -> Step:
            return self.workspace.step(f"{column}-on-{name}={piece}", run)

        def compute() -> Step:
            attack = column_attack(column, self.settings, self._learning_half)
            there, size = (images.to(self.device), labels.to(self.device)), batch_size(images)
            with self.progress.task(f"{column} on {name}", len(images)) as report:
                if is_mean(column):  # of the whole set, which has one strength
                    made = moved_on_average(column, attack, model(), *there, batch_size=size, keep=keep)
                    return {"images": made.cpu()}, {}
                size = ATTACKED * size if name == VANILLA else WHITE_BOX
                return {"images": in_pieces(attack, model, *there, size=size, keep=keep, report=report)}, {}

        made = self.workspace.step(f"{column}-on-{name}", compute)[0]["images"]
        self.workspace.forget(f"{column}-on-{name}=")
        return made

    def _learning_half(self) -> tuple[nn.Module, Images, Labels]:
        half = self.data.train_images.to(self.device), self.data.train_labels.to(self.device)
        return self.vanilla(), *half

    def _file(self, folder: str, name: str) -> Path:
        return self.workspace.folder / folder / f"{name}.safetensors"


def _piece(row: Row, name: str) -> str:
    """What the names of the steps begin with that hold a row's T of a set."""
    return f"{row.key}-of-{name}-"


def _projected(transform: NamedTransform, images: Images) -> Step:
    return {"images": transform.project(images, any_size=True)}, {}
