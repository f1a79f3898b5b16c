"""Joins result files of the same tables that were filled apart, as on machines without a common disk.

python benchmarks/join_results.py FOLDER... --into results/tables
python benchmarks/join_results.py --controls --into results/tables

Two files are joined if they have the same table, preset, settings and images, and column by column where every image
has the same outcome in the undefended network's cell and the attack had the same strength: then the rows have met the
same attacked images. The other columns stay as they are.

`--controls` gives the tables without retraining the second undefended network of their sisters with it, by the same
rule: that network is the same in both, and so are the images.
"""

import argparse
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quasinat.errors import UsageError
from quasinat.files import read_json, write_json, write_npz

SAME = ("schema", "table", "preset", "settings", "data", "threat", "columns", "matched", "sweeps")
UNDEFENDED, LABELS = "none/", "labels"
SISTERS = {"table5": "table1", "table6a": "table2a", "table6b": "table2b"}
CONTROL = "control"
CLOSE = 1e-6  # relative: of strengths that are sums in another order
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


def attacked_apart(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """The columns whose attacks differ in a strength, or in the digest of their images, of two results that say."""
    both = one["strengths"].keys() & other["strengths"].keys()
    return {column for column in both if not _alike(one["strengths"][column], other["strengths"][column])}


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    pairs = [(one[name], other[name]) for name in (one.keys() & other.keys()) - {"seconds"}]  # how long it took
    return all(
        math.isclose(a, b, rel_tol=CLOSE) if isinstance(a, float) and isinstance(b, float) else a == b for a, b in pairs
    )


def shared_columns(one: Outcomes, other: Outcomes, apart: Set[str] = frozenset()) -> set[str]:
    """The columns, but for `apart`, in which the undefended network has the same outcome for every image.

    Raises:
        UsageError: there is none, or another cell of such a column has two outcomes.
    """
    both = one.keys() & other.keys()
    same = {name for name in both if np.array_equal(one[name], other[name])}
    columns = {name.removeprefix(UNDEFENDED) for name in same if name.startswith(UNDEFENDED)} - apart
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
            columns = shared_columns(ours, outcomes, attacked_apart(there, result))
            outcomes = {name: value for name, value in outcomes.items() if _column(name) in columns} | ours
            result = joined(there, result, columns)
        write_json(kept, result)
        write_npz(kept.with_suffix(".npz"), outcomes)
        print(f"{kept}: {len([name for name in outcomes if name.count('/') == 1])} cells")


def with_control(result: dict[str, Any], sister: dict[str, Any], columns: set[str]) -> dict[str, Any]:
    """A result with its sister's second undefended network, behind the paper's rows, in the columns that they share.

    Raises:
        UsageError: they are of different settings or images.
    """
    for part in ("schema", "preset", "settings", "data"):
        if result[part] != sister[part]:
            raise UsageError(f"the two results differ in their {part}", "take what was run with the same settings")
    found = next(row for row in sister["rows"] if row["key"] == CONTROL)
    cells = {
        column: found["cells"][column] if column in columns else {"status": "not run"}
        for column in result["rows"][0]["cells"]
    }
    rows = [row for row in result["rows"] if row["key"] != CONTROL]
    after = sum(row["in_paper"] for row in rows)
    rows.insert(after, {**found, "in_paper": False, "cells": cells, "paper": {}})
    past = [*result.get("joined", []), sister["provenance"]]
    new = [value for value in _different(past) if value != result["provenance"]]
    return {**result, "rows": rows} | ({"joined": new} if new else {})


def add_controls(target: Path) -> None:
    """Puts the control of each table without retraining into its files in `target`."""
    for name, sister in SISTERS.items():
        for path in sorted(target.glob(f"{name}-*.json")):
            beside = path.with_name(path.name.replace(name, sister))
            if not (beside.is_file() and beside.with_suffix(".npz").is_file()):
                continue
            result: Any = read_json(path)
            theirs: Any = read_json(beside)
            ours, outcomes = _arrays(path.with_suffix(".npz")), _arrays(beside.with_suffix(".npz"))
            undefended = (
                {name: value for name, value in arrays.items() if name.startswith((UNDEFENDED, LABELS))}
                for arrays in (ours, outcomes)
            )  # behind a transformation the two tables have other networks
            columns = shared_columns(*undefended, attacked_apart(result, theirs))
            columns &= {name.removeprefix(f"{CONTROL}/") for name in outcomes if name.startswith(f"{CONTROL}/")}
            write_json(path, with_control(result, theirs, columns))
            added = {f"{CONTROL}/{column}": outcomes[f"{CONTROL}/{column}"] for column in columns}
            write_npz(path.with_suffix(".npz"), ours | added)
            print(f"{path}: {len(columns)} cells of the control")


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as file:
        return dict(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--into", required=True, type=Path)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        join_into(folder, arguments.into)
    if arguments.controls:
        add_controls(arguments.into)
