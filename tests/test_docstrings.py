"""Every public name says what it is, and what each of its arguments is."""

import enum
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import quasinat

SOURCE = Path(quasinat.__file__).parent
ROOMS = ["quasinat", *(f"quasinat.{path.parent.name}" for path in sorted(SOURCE.glob("*/__init__.py")))]


def public() -> dict[str, Any]:
    """The classes and functions in `__all__` of every room."""
    names = {}
    for room in map(importlib.import_module, ROOMS):
        for name in getattr(room, "__all__", []):
            value = getattr(room, name)
            if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("quasinat"):
                names[f"{room.__name__}.{name}"] = value
    return names


PUBLIC = public()


def documented(value: Any) -> str:
    """A docstring; of a class also those of the classes that it has its constructor from."""
    if not inspect.isclass(value):
        return inspect.getdoc(value) or ""
    classes = [value]
    if "__init__" not in vars(value):
        classes += [base for base in value.__mro__[1:] if base.__module__.startswith("quasinat")]
    return "\n".join(base.__doc__ or "" for base in classes)


def arguments(value: Any) -> list[str]:
    if inspect.isclass(value) and (issubclass(value, enum.Enum) or getattr(value, "_is_protocol", False)):
        return []
    collected = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # mostly of torch's modules
    return [name for name, item in inspect.signature(value).parameters.items() if item.kind not in collected]


def unexplained(value: Any) -> list[str]:
    """The arguments that neither the docstring names, nor that of a function to which it refers in backticks."""
    text = documented(value)
    module: ModuleType = importlib.import_module(value.__module__)
    referred = [getattr(module, name, None) for name in re.findall(r"`(\w+)`", text)]
    also = "\n".join(documented(other) for other in referred if inspect.isfunction(other))
    return [name for name in arguments(value) if not re.search(rf"\b{name}\b", f"{text}\n{also}")]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_says_what_it_is(name: str) -> None:
    value = PUBLIC[name]
    assert len((value.__doc__ or "").split()) >= 3, f"{name} has no docstring of its own"
    assert not unexplained(value)


def test_an_argument_that_is_not_explained_is_found() -> None:
    def lacking(images: int, budget: int) -> None:
        """Moves the images."""

    assert unexplained(lacking) == ["budget"]


def test_there_is_something_to_look_at() -> None:
    assert len(PUBLIC) > 200
    assert {"quasinat.solve", "quasinat.attacks.pgd", "quasinat.defences.TotalVariation"} <= PUBLIC.keys()
