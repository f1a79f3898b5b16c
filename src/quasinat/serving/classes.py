"""The names of the classes, from the classifiers' files or from where somebody else's classifier comes from."""

from collections.abc import Sequence
from typing import Any

from quasinat.errors import UsageError


def class_names(*networks: Any) -> Sequence[str] | None:
    """What the cards or the labels of the networks call their classes; None where none of them says.

    None among them are left out.

    Raises:
        UsageError: they call them otherwise, so that their answers cannot be compared.
    """
    found: list[list[str]] = []
    for network in networks:
        labels = getattr(network, "labels", {})
        names: Any = [labels.get(number) for number in range(len(labels))]
        names = names or getattr(network, "card", {}).get("provenance", {}).get("classes")
        usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if usable and len(names) == getattr(network, "classes", None) and names not in found:
            found.append(names)
    if len(found) > 1:
        raise UsageError("--model and --plain-model have other classes", "name two trained on one image set")
    return found[0] if found else None
