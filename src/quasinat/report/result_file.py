"""What a report needs of a result file, checked once, and the few ways in which it is read."""

from typing import Any

from quasinat.errors import InputError

Results = dict[str, Any]

SCHEMA = 1
CLEAN = "clean"
RETRAINED = "gray-box, retrained classifier"

_TOP = {
    "settings": dict,
    "provenance": dict,
    "data": dict,
    "columns": list,
    "rows": list,
    "strengths": dict,
    "psnr": dict,
    "strata": dict,
    "trade_off": list,
    "curves": dict,
    "seconds": dict,
    "peak_memory": int,
}
_DATA = ("name", "description", "classes", "train", "test", "shape")
_ROW = ("key", "block", "label", "role", "cells")
_CELL = ("value", "n", "low", "high")
_STRENGTH = ("dissimilarity", "linf", "psnr", "moved")
_PROVENANCE = ("quasinat", "threads")
_STRATA = ("sizes", "unchanged")
_POINT = ("sparsity", "clean", "adversarial", "psnr")


def check(results: Results) -> Results:
    """The result file itself, once it is known to hold what a report reads.

    Raises:
        InputError: another schema, or a key that is missing; names it.
    """
    if "schema" not in results:
        raise _missing("schema")
    if results["schema"] != SCHEMA:
        problem = f"the result file has schema {results['schema']}, this version reads schema {SCHEMA}"
        raise InputError(problem, "run the experiment again, or report it with the version that wrote it")
    for key, kind in _TOP.items():
        if not isinstance(results.get(key), kind):
            raise _missing(key)
    _hold(results["data"], _DATA, "data")
    _hold(results["provenance"], _PROVENANCE, "provenance")
    _hold(results["strata"], _STRATA, "strata")
    for i, row in enumerate(results["rows"]):
        _hold(row, _ROW, f"rows[{i}]")
        for key in ("key", "label", "role"):
            if not isinstance(row[key], str):
                raise _missing(f"rows[{i}].{key}")
        white = row["role"] == "white-box"
        _hold(row, ("gray_box", "strengths") if white else (), f"rows[{i}]")
        for part in ("cells", "gray_box") if white else ("cells",):
            if not isinstance(row[part], dict):
                raise _missing(f"rows[{i}].{part}")
            for column, cell in row[part].items():
                _hold(cell, _CELL, f"rows[{i}].{part}.{column}")
    for column, strength in results["strengths"].items():
        _hold(strength, _STRENGTH, f"strengths.{column}")
    for i, point in enumerate(results["trade_off"]):
        _hold(point, _POINT, f"trade_off[{i}]")
        for side in ("clean", "adversarial"):
            _hold(point[side], _CELL, f"trade_off[{i}].{side}")
    return results


def _hold(value: object, keys: tuple[str, ...], where: str) -> None:
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise _missing(f"{where}.{key}")


def _missing(key: str) -> InputError:
    return InputError(f"the result file lacks a valid {key!r}", "delete results.json and run the experiment again")


def rows_by_key(results: Results) -> dict[str, dict[str, Any]]:
    """The table's rows by their key, in their order."""
    return {row["key"]: row for row in results["rows"]}


def layers(results: Results) -> dict[str, str]:
    """The titles of the layers by name: those of the rows `retrained-NAME`."""
    prefix = "retrained-"
    return {row["key"].removeprefix(prefix): row["label"] for row in results["rows"] if row["key"].startswith(prefix)}


def attack_columns(results: Results) -> list[str]:
    """The columns that hold an attack."""
    return [column for column in results["columns"] if column != CLEAN]
