"""A solver as plain values, to be written into a file, and back."""

from dataclasses import fields
from typing import Any

import torch

from quasinat.sparse_coding.admm import STORAGE
from quasinat.sparse_coding.solve import SOLVERS, Solver

MOST = 100_000  # steps and passes that a file can ask for: they decide how long a computation takes
MOST_THREADS = 1024  # more than a machine can start end the process
_STORAGE = {str(dtype): dtype for dtype in STORAGE}


def describe_solver(solver: Solver) -> dict[str, Any]:
    """The solver's name in `SOLVERS` and its hyperparameters, as JSON holds them."""
    values = {field.name: getattr(solver, field.name) for field in fields(solver)}  # type: ignore[arg-type]
    plain = {name: str(value) if isinstance(value, torch.dtype) else value for name, value in values.items()}
    return {"name": next(name for name, kind in SOLVERS.items() if type(solver) is kind), **plain}


def solver_from(card: dict[str, Any]) -> Solver:
    """The solver that `describe_solver` described.

    Args:
        card: what `describe_solver` gave.

    Raises:
        KeyError, TypeError: there is no such solver, or it has no such hyperparameter.
        ValueError: a value of another type, or out of range.

    Examples:
        >>> from quasinat import ADMM
        >>> from quasinat.sparse_coding import describe_solver, solver_from
        >>> solver_from(describe_solver(ADMM(tolerance=1e-3))).tolerance
        0.001
    """
    kind = SOLVERS[card["name"]]
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in card.items() if name != "name"}
    for name, value in values.items():
        if name in defaults and not _fits(name, value, defaults[name]):
            raise ValueError(f"the solver's {name} is {value!r}")
    if values.get("storage") is not None:
        values["storage"] = _STORAGE[values["storage"]]
    return kind(**values)


def _fits(name: str, value: Any, default: Any) -> bool:
    """Whether a value of a card is of the type of the hyperparameter, and within its limit."""
    if value is None:
        return default is None
    if name == "storage" or isinstance(default, str):
        return isinstance(value, str)
    if isinstance(default, bool):
        return isinstance(value, bool)
    if type(default) is int or name == "threads":
        return type(value) is int and value <= (MOST_THREADS if name == "threads" else MOST)
    return type(value) in (int, float)
