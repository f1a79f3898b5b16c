"""quasinat info: which solvers run here, and with what."""

import json
from typing import Annotated

import typer

from quasinat.evaluation.record import provenance
from quasinat.sparse_coding import solvers_here

EXAMPLE = """Example:  quasinat info --json"""


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """What runs on this machine: versions, and each solver with the reason where it cannot run."""
    facts = {**provenance(), **{f"solver {name}": state for name, state in solvers_here().items()}}
    if as_json:
        print(json.dumps(facts))
    else:
        width = max(map(len, facts))
        print("\n".join(f"{name:<{width}}  {fact}" for name, fact in facts.items()))


info.__doc__ = f"{info.__doc__}\n\n{EXAMPLE}"
