"""The cells of tables: which there are, which are meant, whose share they are, and whether they are done."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from quasinat.errors import UsageError, did_you_mean
from quasinat.evaluation import code_fingerprint
from quasinat.experiments.table_settings import TableSettings
from quasinat.experiments.table_spec import Row, Table
from quasinat.files import read_json


@dataclass(frozen=True)
class Place:
    """A cell's place in a table, and its name in the workspace."""

    table: Table
    row: Row
    column: str

    @property
    def name(self) -> str:
        """Two tables of one threat share a cell of one name."""
        return f"cell-{self.table.threat}-{self.row.key}-{self.column}"


def places(tables: Sequence[Table], only: str | None = None) -> list[Place]:
    """The cells of some tables, row by row.

    Args:
        only: a row and a column as `stl-cluster/bim-0.03`, either of them a pattern as `*` or `fgsm-*`; a row alone
            means all its columns.

    Raises:
        UsageError: no cell is meant.
    """
    every = [Place(table, row, column) for table in tables for row in table.all_rows for column in table.all_columns]
    if only is None:
        return every
    wanted_row, _, wanted_column = only.partition("/")
    kept = [
        place
        for place in every
        if fnmatchcase(place.row.key, wanted_row) and fnmatchcase(place.column, wanted_column or "*")
    ]
    if not kept:
        known = sorted({f"{place.row.key}/{place.column}" for place in every})
        raise UsageError(f"--only {only} means no cell", did_you_mean(only, known))
    return kept


def share_of(every: list[Place], shard: tuple[int, int] | None) -> list[Place]:
    """The cells of every n-th row from the i-th, which share the most within a row; all, without a share."""
    if shard is None:
        return every
    index, count = shard
    keys = list(dict.fromkeys(place.row.key for place in every))
    own = set(keys[index - 1 :: count])
    return [place for place in every if place.row.key in own]


def content_hash(place: Place, settings: TableSettings) -> str:
    """Of what decides a cell, but images and weights: row, column, threat, image set's name, settings and code."""
    table = place.table
    parts = [table.data, table.threat, asdict(place.row), place.column, settings.as_json(), code_fingerprint()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_done(place: Place, preset: str, settings: TableSettings, out: Path) -> bool:
    """Whether a run with these settings and this code has filled a cell below `out`."""
    folder = out / f"{place.table.data}-{preset}"
    if not (folder / "steps" / f"{place.name}.safetensors").is_file():
        return False
    made_by = read_json(folder / "run.json")
    return made_by.get("settings") == settings.as_json() and made_by.get("code") == code_fingerprint()
