"""A solver as plain values, to be written into a file, and back."""

from dataclasses import fields
from typing import Any

import torch

from quasinat.sparse_coding.solve import SOLVERS, Solver


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

    Examples:
        >>> from quasinat import ADMM
        >>> from quasinat.sparse_coding import describe_solver, solver_from
        >>> solver_from(describe_solver(ADMM(tolerance=1e-3))).tolerance
        0.001
    """
    values = {
        name: getattr(torch, value.removeprefix("torch.")) if name == "storage" and isinstance(value, str) else value
        for name, value in card.items()
        if name != "name"
    }
    return SOLVERS[card["name"]](**values)
