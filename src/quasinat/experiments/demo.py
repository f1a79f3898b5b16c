"""The whole method on real images: learn, project, retrain, attack, measure (the paper, sections 3 and 5)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Labels
from quasinat.batches import project
from quasinat.data import Dataset, load, subset
from quasinat.defended import Defended
from quasinat.errors import InputError
from quasinat.evaluation import code_fingerprint
from quasinat.experiments.columns import CLEAN, attacked, gray_box_attacks, white_box_attacks
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.settings import DemoSettings
from quasinat.experiments.workspace import Step, Workspace
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import vgg
from quasinat.sparse_coding import Auto, Identity
from quasinat.strata import Split, Strata, fit_strata, learn_dictionaries
from quasinat.training import train_classifier

LAYERS = ("universal", "stratified")


def load_data(settings: DemoSettings) -> Dataset:
    """The settings' image set, cut to the asked number of images a class."""
    if settings.data == "photographs":
        return load(
            "photographs",
            settings.root,
            size=settings.image_size,
            colour=settings.colour,
            train_per_class=settings.train_per_class,
            test_per_class=settings.test_per_class,
            seed=settings.seed,
        )
    options = {"size": settings.image_size, "convert": settings.convert} if settings.data == "folder" else {}
    data = load(settings.data, settings.root, **options)
    train, test = (int(torch.bincount(labels).min()) for labels in (data.train_labels, data.test_labels))
    return subset(data, min(train, settings.train_per_class), min(test, settings.test_per_class), seed=settings.seed)


@dataclass(frozen=True)
class Demo:
    """A run: its settings, data, output folder and how it reports. Every method is one step, computed once."""

    settings: DemoSettings
    data: Dataset
    workspace: Workspace
    progress: Progress

    def classifier(self, name: str, images: Images, seed: int) -> nn.Module:
        """A classifier trained on `images`, with a seed of its own."""
        settings, labels = self.settings, self.data.train_labels
        channels = self.data.train_images.shape[1]
        network = vgg(settings.network, classes=len(self.data.classes), channels=channels, seed=seed)

        def train() -> Step:
            with self.progress.task(f"train the {name} classifier", settings.epochs) as report:
                train_classifier(
                    network,
                    images,
                    labels,
                    epochs=settings.epochs,
                    seed=seed,
                    on_epoch=lambda epoch, loss: report(epoch),
                )
            return network.state_dict(), {}

        network.load_state_dict(self.workspace.step(f"classifier-{name}", train)[0])
        return network.eval()

    def retrained(self, name: str, layer: SparseTransformationLayer) -> nn.Module:
        """A classifier trained on T(train) (the paper, section 3.5)."""
        images = self.projected(f"train-{name}", layer, self.data.train_images)
        return self.classifier(f"retrained-{name}", images, self.settings.seed)

    def layer(self, name: str) -> SparseTransformationLayer:
        """The layer with one universal dictionary, or with one per stratum; saved as `NAME.stl`."""
        path = self.workspace.folder / f"{name}.stl"

        def learn() -> Step:
            self._learned(name).save(path)
            return {}, {}

        self.workspace.step(f"learn-{name}", learn)
        return SparseTransformationLayer.load(path)

    def _learned(self, name: str) -> SparseTransformationLayer:
        settings, images = self.settings, self.data.train_images
        split = cast(Split, settings.split)
        strata = self._strata() if name == "stratified" else None
        passes, count = settings.dictionary_passes, strata.count if strata else 1
        with self.progress.task(f"learn the {name} dictionaries", passes * count) as report:
            dictionaries = learn_dictionaries(
                images,
                strata,
                filters=settings.filters,
                size=settings.filter_size,
                sparsity=settings.sparsity,
                split=split,
                passes=passes,
                tolerance=0.0,
                images_each=settings.dictionary_images,
                seed=settings.seed,
                on_pass=lambda stratum, state: report(stratum * passes + state.passes),
            )
        solver = Auto(tolerance=settings.tolerance)
        return SparseTransformationLayer(strata, dictionaries, settings.sparsity, split=split, solver=solver)

    def _strata(self) -> Strata:
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed)
        images = self.data.train_images
        chosen = torch.randperm(len(images), generator=generator)[: settings.autoencoder_images]
        with self.progress.task("train the denoising autoencoder", settings.autoencoder_epochs) as report:
            return fit_strata(
                images[chosen],
                count=settings.strata,
                neighbours=settings.neighbours,
                epochs=settings.autoencoder_epochs,
                seed=settings.seed,
                on_epoch=lambda epoch, loss: report(epoch),
            )

    def projected(self, name: str, layer: SparseTransformationLayer, images: Images) -> Images:
        """T of a set."""

        def compute() -> Step:
            with self.progress.task(f"project {name}", len(images)) as report:
                return {"images": project(layer, images, on_batch=report)}, {}

        return self.workspace.step(f"projected-{name}", compute)[0]["images"]

    def adversarial(self, name: str, attack: Any, model: nn.Module, images: Images, labels: Labels) -> Step:
        """Adversarial images of a set against `model`."""

        def compute() -> Step:
            with self.progress.task(f"attack {name}", len(images)) as report:
                return {"images": attacked(attack, model, images, labels, report=report)}, {}

        return self.workspace.step(f"attack-{name}", compute)


@dataclass(frozen=True)
class Evidence:
    """What the run made, from which every number and picture is computed.

    Attributes:
        data: the image set.
        layers: the universal and the stratified layer.
        vanilla, control: classifiers trained on clean images, of two seeds.
        retrained: the classifiers trained on T(train), by layer.
        sets: test images, clean and attacked, by column.
        projected: T of those, by layer and column.
        white_box: adversarial images against each retrained, defended classifier, by layer and column.
    """

    data: Dataset
    layers: dict[str, SparseTransformationLayer]
    vanilla: nn.Module
    control: nn.Module
    retrained: dict[str, nn.Module]
    sets: dict[str, Tensor]
    projected: dict[str, dict[str, Tensor]]
    white_box: dict[str, dict[str, Tensor]]


def gather(demo: Demo) -> Evidence:
    """Runs the steps in their order; those done before are read."""
    settings, data = demo.settings, demo.data
    test, labels = data.test_images, data.test_labels
    vanilla = demo.classifier("vanilla", data.train_images, settings.seed)
    control = demo.classifier("control", data.train_images, settings.seed + 1)
    layers = {name: demo.layer(name) for name in LAYERS}
    retrained = {name: demo.retrained(name, layers[name]) for name in LAYERS}
    sets = {CLEAN: test}
    for column, attack in gray_box_attacks(settings).items():
        sets[column] = demo.adversarial(column, attack, vanilla, test, labels)[0]["images"]
    projected = {
        name: {column: demo.projected(f"{column}-{name}", layers[name], images) for column, images in sets.items()}
        for name in LAYERS
    }
    count = min(settings.white_box_images, len(test))
    white_box: dict[str, dict[str, Tensor]] = {name: {} for name in LAYERS}
    for name in LAYERS:
        defended = Defended(layers[name], retrained[name]).with_adjoint(Identity())
        for column, attack in white_box_attacks(settings).items():
            step = demo.adversarial(f"white-box-{column}-{name}", attack, defended, test[:count], labels[:count])
            white_box[name][column] = step[0]["images"]
    return Evidence(data, layers, vanilla, control, retrained, sets, projected, white_box)


def open_demo(
    settings: DemoSettings, folder: Path, *, progress: Progress | None = None, overwrite: bool = False
) -> Demo:
    """Loads the data and opens the output folder; nothing is computed yet.

    Raises:
        InputError: the data cannot be read or used.
        UsageError: the folder holds something else.
    """
    data = load_data(settings)
    side = min(data.train_images.shape[-2:])
    if side < settings.filter_size:
        raise InputError(
            f"images of {side} pixels are smaller than the filters ({settings.filter_size} x {settings.filter_size})",
            "choose larger images or a smaller --filter-size",
        )
    fingerprint = {
        "settings": settings.as_json(),
        "data": data.fingerprint(),
        "code": code_fingerprint(),
    }
    return Demo(settings, data, Workspace(folder, fingerprint, overwrite=overwrite), progress or Silent())
