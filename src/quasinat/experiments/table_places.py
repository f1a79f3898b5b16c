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

GRAY_BOX = "gray-box"


@dataclass(frozen=True)
class Place:
    """A cell's place in a table, and its name in the workspace."""

    table: Table
    row: Row
    column: str

    @property
    def name(self) -> str:
        """Two tables share a cell of one name: of one threat, or of any gray-box one if the row transforms nothing."""
        return f"cell-{self.table.threat if self.depends_on_threat else GRAY_BOX}-{self.row.key}-{self.column}"

    @property
    def depends_on_threat(self) -> bool:
        """Whether it matters if there is a retrained classifier behind a transformation, or the attack sees the row."""
        transforms = self.row.defence is not None or self.row.control_of is not None
        return transforms or self.table.threat == "white-box"


def places(tables: Sequence[Table], only: str | None = None) -> list[Place]:
    """The cells of some tables, row by row.

    Args:
        only: a row and a column as `stl-cluster/bim-0.03`, either of them a pattern as `*` or `fgsm-*`; an attack's
            name alone means all its columns, as `stl-cluster/bim`, and a row alone all of them.

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
        if fnmatchcase(place.row.key, wanted_row) and _is_meant(place.column, wanted_column or "*")
    ]
    if not kept:
        meant = [place for place in every if fnmatchcase(place.row.key, wanted_row)]
        keys = list(dict.fromkeys(place.row.key for place in every))
        columns = list(dict.fromkeys(place.column for place in every))
        remedy = did_you_mean(wanted_column, columns) if meant else did_you_mean(wanted_row, keys)
        raise UsageError(f"--only {only} means no cell", f"of the {'columns' if meant else 'rows'}, {remedy}")
    return kept


def _is_meant(column: str, wanted: str) -> bool:
    """Whether a column is of a pattern, or of the attack that it names without a size, at any strength."""
    stated = column.partition("@")[0]
    return fnmatchcase(column, wanted) or stated.rpartition("-")[0] == wanted


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
    threat = table.threat if place.depends_on_threat else GRAY_BOX
    parts = [table.data, threat, asdict(place.row), place.column, settings.as_json(), code_fingerprint()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def is_done(place: Place, preset: str, settings: TableSettings, out: Path) -> bool:
    """Whether a run with these settings and this code has filled a cell below `out`."""
    folder = out / f"{place.table.data}-{preset}"
    if not (folder / "steps" / f"{place.name}.safetensors").is_file():
        return False
    made_by = read_json(folder / "run.json")
    return made_by.get("settings") == settings.as_json() and made_by.get("code") == code_fingerprint()
