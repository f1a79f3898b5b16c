"""A run of tables: every cell once, resumable, a failure recorded and not the end; a result file for each table."""

import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quasinat.artefact import file_digest
from quasinat.errors import LONGEST, InputError, QuasinatError, UsageError, one_line
from quasinat.evaluation import accuracy_of, calibration, code_fingerprint, provenance
from quasinat.experiments.columns import CLEAN
from quasinat.experiments.devices import device_named
from quasinat.experiments.measure import strength
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.table_cells import Cell, cell
from quasinat.experiments.table_images import IMAGE_SETS, image_set_named
from quasinat.experiments.table_outcomes import table_outcomes
from quasinat.experiments.table_parts import Parts
from quasinat.experiments.table_places import Place, places, share_of
from quasinat.experiments.table_settings import TableSettings
from quasinat.experiments.table_spec import Table
from quasinat.experiments.workspace import Step, Workspace
from quasinat.files import write_json, write_npz
from quasinat.training.checkpoint import digest

SCHEMA = 1


def run_tables(
    tables: Sequence[Table],
    preset: str,
    settings: TableSettings,
    root: Path,
    out: Path,
    *,
    only: str | None = None,
    shard: tuple[int, int] | None = None,
    device: str = "auto",
    weights: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Fills the tables' cells and writes `OUT/<table>-<preset>.json` for each; the same call again goes on.

    Beside it `OUT/<table>-<preset>.npz` has each image's outcome, see `table_outcomes`. What the cells share lies in
    `OUT/<image set>-<preset>/`. A cell that cannot be filled has its reason in the result.

    Args:
        root: the folder below which the image sets lie.
        only: see `places`; the other cells are read where they are there, and are "not run" where they are not.
        shard: (i, n): only the i-th share of the rows, from 1; a run without it then puts all together.
        device: "auto", "cpu" or "cuda".
        weights: the file of MobileNetV2's weights, for the tables that start from them.
        overwrite: start afresh.

    Returns:
        The results by the table's name.

    Raises:
        UsageError, InputError: what cannot be run at all; see `places` and `image_set_named`.
    """
    wanted = {place.name for place in share_of(places(tables, only), shard)}
    opened: dict[str, Parts] = {}
    results = {}
    for table in tables:
        if table.data not in opened:
            opened[table.data] = open_parts(
                table.data,
                preset,
                settings,
                root,
                out,
                device=device,
                weights=weights,
                overwrite=overwrite,
                progress=progress,
            )
        results[table.name] = _filled(table, preset, opened[table.data], wanted)
        write_json(out / f"{table.name}-{preset}.json", results[table.name])
        parts = opened[table.data]
        write_npz(out / f"{table.name}-{preset}.npz", table_outcomes(table, parts.workspace, parts.labels()))
    return results


def open_parts(
    data: str,
    preset: str,
    settings: TableSettings,
    root: Path,
    out: Path,
    *,
    device: str = "auto",
    weights: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Parts:
    """What the cells of an image set share, in `OUT/<image set>-<preset>/`; made there, or continued.

    Args:
        data: the image set's name; the other arguments are those of `run_tables`.

    Raises:
        UsageError: what lies there was made of other images, with other settings or by other code.
        UsageError, InputError: see `image_set_named`.
    """
    where = device_named(device)
    images = image_set_named(data, root, settings)
    mark = {"data": images.fingerprint(), "settings": settings.as_json(), "code": code_fingerprint(), "device": where}
    network = IMAGE_SETS[data].network
    if weights is not None and network != "vgg":
        mark["weights"] = file_digest(weights)
    workspace = Workspace(out / f"{data}-{preset}", mark, overwrite=overwrite)
    return Parts(images, settings, workspace, progress or Silent(), where, network, weights)


def _filled(table: Table, preset: str, parts: Parts, wanted: set[str]) -> dict[str, Any]:
    """The result of one table."""
    rows = []
    for row in table.all_rows:
        cells = {column: _value(parts, Place(table, row, column), wanted) for column in table.all_columns}
        rows.append(
            {
                "key": row.key,
                "label": row.label,
                "in_paper": row in table.rows,
                "cells": cells,
                "paper": dict(table.paper.get(row.key, {})),
            }
        )
    data = parts.data
    return {
        "schema": SCHEMA,
        "table": table.name,
        "title": table.title,
        "caption": table.caption,
        "threat": table.threat,
        "preset": preset,
        "settings": parts.settings.as_json(),
        "provenance": provenance() | {"device": parts.device},
        "network": parts.network,
        "data": {
            "name": table.data,
            "description": data.description,
            "train": len(data.train_images),
            "test": len(data.test_images),
            "shape": list(data.test_images.shape[1:]),
            "fingerprint": data.fingerprint(),
        },
        "columns": list(table.columns),
        "matched": dict(table.matched),
        "sweeps": {
            sweep.axis: [[value, row.key] for value, row in zip(sweep.values, sweep.rows, strict=True)]
            for sweep in table.sweeps
        },
        "rows": rows,
        "strengths": _strengths(table, parts),
    }


def _value(parts: Parts, place: Place, wanted: set[str]) -> dict[str, Any]:
    """A cell as the result file holds it: an accuracy with n and interval, or a status."""
    there = (parts.workspace.steps / f"{place.name}.safetensors").is_file()
    if place.name not in wanted and not there:
        return {"status": "not run"}

    def compute() -> Step:
        try:
            made = cell(parts, place.row, place.column, place.table.threat)
        except UsageError as error:  # the cell has no meaning, which the next run need not find out again
            return {}, {"none": str(error)}
        tensors = {"right": made.right, "confidence": made.confidence}
        if made.flagged is not None:
            tensors["flagged"] = made.flagged
        return tensors, {} if made.psnr is None else {"psnr": made.psnr}

    try:
        tensors, values = parts.workspace.step(place.name, compute)
    except Exception as error:  # of whatever kind: a night's other cells do not depend on this one
        return {"status": "failed", "reason": _reason(error)}
    if "none" in values:
        return {"status": "none", "reason": values["none"]}
    return {
        "status": "done",
        **_described(Cell(tensors["right"], tensors["confidence"], tensors.get("flagged"))),
        **values,
    }


def _reason(error: Exception) -> str:
    """What is wrong; of an error that is not ours, such as an exhausted memory, its kind and where it came up too."""
    if isinstance(error, QuasinatError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return one_line(f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})")[:LONGEST]


def _described(made: Cell) -> dict[str, Any]:
    described = asdict(accuracy_of(made.right))
    if made.flagged is not None:
        return described | {"flagged": float(made.flagged.float().mean())}
    return described | {"calibration_error": calibration(made.confidence, made.right).error}


def _strengths(table: Table, parts: Parts) -> dict[str, Any]:
    """What each column's attack on the vanilla classifier really used, and its images' digest; of gray-box tables."""
    if table.threat == "white-box":
        return {}
    stated = {column: name for name, column in table.matched.items()}
    used = {}
    for column in table.all_columns:
        if column == CLEAN or not (parts.workspace.steps / f"{column}-on-vanilla.safetensors").is_file():
            continue
        with suppress(InputError):  # a damaged step, whose cells have failed
            images = parts.adversarial(column)
            used[column] = strength(images, parts.data.test_images) | {"digest": digest(images)}
            if column in stated:
                used[column] |= parts.matched(stated[column], float(column.partition("@")[2]))[1]
    return used
