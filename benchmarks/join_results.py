"""Joins result files of the same tables that were filled apart, as on machines without a common disk.

python benchmarks/join_results.py FOLDER... --into results/tables

Two files are joined if they have the same table, preset, settings and images, and column by column where every image
has the same outcome in the undefended network's cell: then the rows have met the same attacked images. The other
columns stay as they are.
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


def joined(one: dict[str, Any], other: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    """The cells of both in `columns`, elsewhere those of `one`, whose order of rows and strengths it keeps too.

    Raises:
        UsageError: they are of different tables, settings or images.
    """
    for part in SAME:
        if _known_to_both(one.get(part), other.get(part)) != _known_to_both(other.get(part), one.get(part)):
            raise UsageError(f"the two results differ in their {part}", "join what was run with the same settings")
    theirs = {row["key"]: row for row in other["rows"]}
    rows = [_row(row, theirs.get(row["key"]), columns) for row in one["rows"]]
    past = [*one.get("joined", []), other["provenance"], *other.get("joined", [])]
    return {**one, "rows": rows, "strengths": other["strengths"] | one["strengths"], "joined": _different(past)}


def _known_to_both(value: Any, other: Any) -> Any:
    """Without the settings that one of the two, of an older version, has not had yet."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {name: each for name, each in value.items() if name in other}
    return value


def _row(row: dict[str, Any], other: dict[str, Any] | None, columns: set[str]) -> dict[str, Any]:
    if other is None:
        return row
    cells = {
        column: other["cells"].get(column, cell) if cell["status"] == "not run" and column in columns else cell
        for column, cell in row["cells"].items()
    }
    return row | {"cells": cells}


def _different(provenances: Sequence[Any]) -> list[Any]:
    return [value for index, value in enumerate(provenances) if value not in provenances[:index]]


def shared_columns(one: Outcomes, other: Outcomes) -> set[str]:
    """The columns in which the undefended network has the same outcome for every image.

    Raises:
        UsageError: there is none, or another cell of such a column has two outcomes.
    """
    both = one.keys() & other.keys()
    same = {name for name in both if np.array_equal(one[name], other[name])}
    columns = {name.removeprefix(UNDEFENDED) for name in same if name.startswith(UNDEFENDED)}
    if not columns:
        raise UsageError(
            "the undefended network's outcomes agree in no column", "join runs of the same seed and images"
        )
    for name in sorted(both - same):
        if _column(name) in columns:
            raise UsageError(f"the two results differ in {name}", "join runs of the same code, seed and threads")
    return columns


def _column(name: str) -> str:
    """Of `ROW/COLUMN` or `ROW/COLUMN/flagged`."""
    return name.split("/")[1] if "/" in name else name


def join_into(folder: Path, target: Path) -> None:
    """Joins every result file in `folder` into its namesake in `target`, or copies it where there is none."""
    for path in sorted(folder.glob("*.json")):
        result: Any = read_json(path)
        outcomes = _arrays(path.with_suffix(".npz"))
        kept = target / path.name
        if kept.is_file():
            there: Any = read_json(kept)
            ours = _arrays(kept.with_suffix(".npz"))
            columns = shared_columns(ours, outcomes)
            outcomes = {name: value for name, value in outcomes.items() if _column(name) in columns} | ours
            result = joined(there, result, columns)
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
