"""A classifier as a file of its own: its weights and a card that says which network it is and how it was trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quasinat.artefact import Card, check_state, read_artefact, write_artefact
from quasinat.errors import InputError, UsageError
from quasinat.networks.mobilenet import MobileNetV2, mobilenet
from quasinat.networks.thermometer import LEVELS, MOST_LEVELS
from quasinat.networks.vgg import ACTIVATIONS, ENCODINGS, PLANS, VGG, vgg

KIND = "classifier"
MOBILENET = "mobilenet"
Classifier = VGG | MobileNetV2
_LARGEST = 2**16


def save_classifier(path: str | Path, network: Classifier, provenance: Card) -> None:
    """Writes an artefact of kind "classifier", whole or not at all.

    Args:
        path: the file to write.
        network: on any device; its parameters are float32.
        provenance: how it was trained (data, settings, seed, losses...), anything that JSON holds;
            `card["provenance"]` once loaded.

    Raises:
        UsageError: a network of another precision, which the file could not give back as it was.
        OutputError: the file system refuses.
    """
    for name, value in network.state_dict().items():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise UsageError(f"the network holds {name} as {value.dtype}", "convert it with network.float()")
    built = {"network": network.plan, **network.options} if isinstance(network, VGG) else {"network": MOBILENET}
    settings = {**built, "classes": network.classes, "channels": network.channels}
    write_artefact(Path(path), KIND, network.state_dict(), {"settings": settings, "provenance": dict(provenance)})


def load_classifier(path: str | Path) -> Classifier:
    """Reads what `save_classifier` wrote: the network in eval mode on the CPU; its `card` is the file's.

    Args:
        path: of the file.

    Raises:
        InputError: the file is missing, damaged, holds no classifier, or its tensors do not fit its card.
    """
    path = Path(path)
    tensors, card = read_artefact(path, KIND)
    plan, classes, channels, options = _settings(path, card.get("settings"))
    with torch.device("meta"):  # shapes only, so that a damaged card costs no memory
        shapes = MobileNetV2(classes) if plan == MOBILENET else VGG(plan, classes, channels, **options)
        blank = shapes.state_dict()
    check_state(path, tensors, blank)
    network: Classifier
    network = mobilenet(classes) if plan == MOBILENET else vgg(plan, classes=classes, channels=channels, **options)
    network.load_state_dict(tensors)
    network.card = card
    return network.eval()


def _settings(path: Path, settings: Any) -> tuple[str, int, int, dict[str, Any]]:
    """The name of the plan, the classes, the channels and the options; an `InputError` names what a card has wrong."""
    given: Mapping[str, Any] = settings if isinstance(settings, dict) else {}
    plan, plans = given.get("network"), [*PLANS, MOBILENET]
    if plan not in plans:
        raise InputError(f"{path} is of an unknown network {plan!r}", f"train one of: {', '.join(plans)}")
    options = {name: given[name] for name in ("activation", "encoding", "levels") if name in given}
    numbers = {name: given.get(name) for name in ("classes", "channels")}
    usable = {name: type(value) is int and 1 <= value <= _LARGEST for name, value in numbers.items()}
    usable["activation"] = options.get("activation", "relu") in list(ACTIVATIONS)
    usable["encoding"] = options.get("encoding", "none") in ENCODINGS
    usable["levels"] = type(levels := options.get("levels", LEVELS)) is int and 2 <= levels <= MOST_LEVELS
    for name, fits in usable.items():
        if not fits:
            raise InputError(f"{path} has no usable setting {name!r} ({given.get(name)!r})", "train it again")
    return str(plan), given["classes"], given["channels"], options
