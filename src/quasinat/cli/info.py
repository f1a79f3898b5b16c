"""quasinat info: which solvers run here, and with what; or the card of a file that was learned."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from quasinat.artefact import read_card
from quasinat.evaluation.record import provenance
from quasinat.sparse_coding import solvers_here

EXAMPLE = """Example:  quasinat info --json

A file:   quasinat info cifar10.stl"""
LONGEST_LIST = 12


def info(
    file: Annotated[
        Path | None, typer.Argument(help="A layer, strata, dictionaries, an autoencoder or a classifier.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """What runs on this machine: versions, and each solver with the reason where it cannot run. Of a file: its card."""
    facts: dict[str, Any] = (
        {**provenance(), **{f"solver {name}": state for name, state in solvers_here().items()}}
        if file is None
        else read_card(file)
    )
    if as_json:
        print(json.dumps(facts))
        return
    lines = dict(_flat(facts, ""))
    width = max(map(len, lines))
    print("\n".join(f"{name:<{width}}  {fact}" for name, fact in lines.items()))


def _flat(value: Any, name: str) -> list[tuple[str, str]]:
    """A nested value as lines, each under its path; a long list of numbers by its ends."""
    if isinstance(value, dict):
        return [line for key, part in value.items() for line in _flat(part, f"{name}.{key}" if name else key)]
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [line for i, part in enumerate(value) for line in _flat(part, f"{name}[{i}]")]
    if isinstance(value, list):
        numbers = [f"{part:.6g}" if isinstance(part, float) else str(part) for part in value]
        if len(numbers) > LONGEST_LIST:
            numbers = [*numbers[: LONGEST_LIST // 2], f"... ({len(numbers)})", *numbers[-LONGEST_LIST // 2 :]]
        return [(name, ", ".join(numbers))]
    return [(name, str(value))]


info.__doc__ = f"{info.__doc__}\n\n{EXAMPLE}"
