"""Where the classifiers of a table come from: trained from nothing, or from a file of MobileNetV2's weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quasinat.data import Dataset
from quasinat.errors import UsageError
from quasinat.experiments.table_settings import TableSettings
from quasinat.networks import Classifier, load_mobilenet, vgg, with_new_head

TUNING_RATE = 2e-4  # of MobileNetV2's weights, the peak of the schedule: the best of `benchmarks/tuning_rate.py`


@dataclass(frozen=True, eq=False)
class Start:
    """A network, and the passes over the images and the options that it is trained with; none as it is."""

    network: Classifier
    epochs: int
    options: Mapping[str, Any] = field(default_factory=dict)


def _vgg(data: Dataset, settings: TableSettings, weights: Path | None, seed: int, options: Mapping[str, Any]) -> Start:
    """A VGG of random weights."""
    channels = data.train_images.shape[1]
    network = vgg(settings.network, classes=len(data.classes), channels=channels, seed=seed, **options)
    return Start(network, settings.epochs)


def _mobilenet(
    data: Dataset, settings: TableSettings, weights: Path | None, seed: int, options: Mapping[str, Any]
) -> Start:
    """MobileNetV2 for all of ImageNet's classes, as the file has it."""
    network = load_mobilenet(_needed(weights, options))
    if network.classes != len(data.classes):
        problem = f"the weights of {weights} tell {network.classes} classes apart, not {len(data.classes)}"
        raise UsageError(problem, "pass a file of all of ImageNet's classes")
    return Start(network, 0)


def _tuned(
    data: Dataset, settings: TableSettings, weights: Path | None, seed: int, options: Mapping[str, Any]
) -> Start:
    """MobileNetV2 with a new last layer, and all of it trained on."""
    network = with_new_head(load_mobilenet(_needed(weights, options)), len(data.classes))
    return Start(network, settings.tuning_epochs, {"learning_rate": TUNING_RATE})


def _needed(weights: Path | None, options: Mapping[str, Any]) -> Path:
    if weights is None:
        raise UsageError("this table's classifier is a MobileNetV2 of ImageNet", "name its file with --weights")
    if options:
        raise UsageError(f"a MobileNetV2 has no {', '.join(options)}", "leave the row out")
    return weights


CLASSIFIERS: dict[str, Callable[[Dataset, TableSettings, Path | None, int, Mapping[str, Any]], Start]] = {
    "vgg": _vgg,
    "mobilenet": _mobilenet,
    "tuned mobilenet": _tuned,
}
"""By the image set's `network`: from the images, the settings, the file of weights, the seed and options of `vgg`."""
