"""Joins result files of the same tables that were filled apart, as on machines without a common disk.

python benchmarks/join_results.py FOLDER... --into results/tables

Two files are joined if they have the same table, preset, settings and images, and every image the same outcome in the
cells that both have, of which the undefended network's must be one: then the rows have met the same attacked images.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quasinat.errors import UsageError
from quasinat.files import read_json, write_json, write_npz

SAME = ("schema", "table", "preset", "settings", "data", "threat", "columns", "matched", "sweeps")
UNDEFENDED = "none/"
Outcomes = Mapping[str, NDArray[Any]]


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The cells of both; where both have a cell, that of `one`, whose order of rows and strengths it keeps too.

    Raises:
        UsageError: they are of different tables, settings or images.
    """
    for part in SAME:
        if one.get(part) != other.get(part):
            raise UsageError(f"the two results differ in their {part}", "join what was run with the same settings")
    theirs = {row["key"]: row for row in other["rows"]}
    rows = [_row(row, theirs.pop(row["key"], None)) for row in one["rows"]] + list(theirs.values())
    past = [*one.get("joined", []), other["provenance"], *other.get("joined", [])]
    return {**one, "rows": rows, "strengths": other["strengths"] | one["strengths"], "joined": _different(past)}


def _row(row: dict[str, Any], other: dict[str, Any] | None) -> dict[str, Any]:
    if other is None:
        return row
    cells = {
        column: cell if cell["status"] != "not run" else other["cells"].get(column, cell)
        for column, cell in row["cells"].items()
    }
    return row | {"cells": cells}


def _different(provenances: Sequence[Any]) -> list[Any]:
    return [value for index, value in enumerate(provenances) if value not in provenances[:index]]


def outcomes_joined(one: Outcomes, other: Outcomes) -> dict[str, NDArray[Any]]:
    """The outcomes of both.

    Raises:
        UsageError: an image has two outcomes in a cell, or no cell of the undefended network is in both.
    """
    for name in one.keys() & other.keys():
        if not np.array_equal(one[name], other[name]):
            raise UsageError(f"the two results differ in {name}", "join runs of the same code, seed and threads")
    if not any(name.startswith(UNDEFENDED) for name in one.keys() & other.keys()):
        raise UsageError("no cell of the undefended network is in both", "run its row, which shows that they agree")
    return {**other, **one}


def join_into(folder: Path, target: Path) -> None:
    """Joins every result file in `folder` into its namesake in `target`, or copies it where there is none."""
    for path in sorted(folder.glob("*.json")):
        result: Any = read_json(path)
        outcomes = _arrays(path.with_suffix(".npz"))
        kept = target / path.name
        if kept.is_file():
            there: Any = read_json(kept)
            outcomes = outcomes_joined(_arrays(kept.with_suffix(".npz")), outcomes)
            result = joined(there, result)
        write_json(kept, result)
        write_npz(kept.with_suffix(".npz"), outcomes)
        print(f"{kept}: {len([name for name in outcomes if name.count('/') == 1])} cells")


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as file:
        return dict(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--into", required=True, type=Path)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        join_into(folder, arguments.into)
