"""The tables and figures as data: rows and columns, the threat, and what the paper prints in them."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.experiments.columns import CLEAN
from quasinat.experiments.table_settings import TableSettings

THREATS = ("retrained", "vanilla", "white-box")
_FOLDERS = ("tables", "figures")
_SHARED = "rows"


@dataclass(frozen=True)
class Row:
    """A defence of the tables: an input transformation or a network; "none" is neither, and a control is none.

    Attributes:
        key, label: its name in the files, and in print.
        defence: a name in `DEFENCES`, with options, of a transformation.
        network: a name in `NETWORKS`, of a classifier that is defended in itself.
        learns: the kind of what a transformation has learned, if any.
        control_of: the key of a transformation's row whose retrained classifier sees the images as they are: what it
            withstands is not the transformation's merit.
        epochs: of a transformation's own classifier, where they are not the settings'.
    """

    key: str
    label: str
    defence: str | None = None
    network: str | None = None
    learns: str | None = None
    control_of: str | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Default:
    """The row that has an axis at its usual value, which the settings may decide.

    Attributes:
        row: its key; a name in braces stands for that setting, as in `K-{filters}`.
        value: the number, or the name of the setting that it is.
    """

    row: str
    value: int | float | str

    def among(self, settings: Mapping[str, Any]) -> tuple[int | float, str]:
        """The value and the row's key under a run's settings, as JSON holds them."""
        value = settings[self.value] if isinstance(self.value, str) else self.value
        return value, self.row.format(**settings)


@dataclass(frozen=True)
class Sweep:
    """A figure's axis: a transformation, or its classifier, at several values of one parameter, a row for each.

    `default` is the row that has the usual value, which need be none of these.
    """

    axis: str
    values: tuple[int | float, ...]
    rows: tuple[Row, ...]
    default: Default


@dataclass(frozen=True)
class Table:
    """One table, or a figure: the rows of its sweeps.

    Attributes:
        name, title, caption: "table1", "Table 1", and what the paper says about it.
        data: the image set's name, see `image_set_named`.
        threat: "retrained" (attacks on the vanilla classifier; each transformation has a classifier of its own),
            "vanilla" (the attacked classifier behind the transformation) or "white-box".
        columns: attacks, see `attack_named`.
        rows: the paper's.
        more: those that it does not have.
        paper: the printed accuracy of a row at a column.
        sweeps: of a figure.
    """

    name: str
    title: str
    caption: str
    data: str
    threat: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    more: tuple[Row, ...]
    paper: Mapping[str, Mapping[str, float]]
    sweeps: tuple[Sweep, ...] = ()

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The paper's, the others, and the sweeps', in their order."""
        return (*self.rows, *self.more, *(row for sweep in self.sweeps for row in sweep.rows))

    @property
    def matched(self) -> Mapping[str, str]:
        """Of each gray-box attack whose effect on "none" is printed, the column of its strength-matched form.

        That is the column's name with the printed accuracy, as `fgsm-0.08@0.5816`: see `matching`.
        """
        printed = {} if self.threat == "white-box" else self.paper.get("none", {})
        return {
            column: f"{column}@{printed[column]}" for column in self.columns if column in printed and column != CLEAN
        }

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Those at the stated strength and the matched ones."""
        return (*self.columns, *self.matched.values())


def table_names() -> list[str]:
    """The names of all tables and figures."""
    files_there = (path.name for folder in _FOLDERS for path in (_resources() / folder).iterdir())
    names = (name.removesuffix(".toml") for name in files_there if name.endswith(".toml"))
    return sorted(name for name in names if name != _SHARED)


@cache
def known_rows() -> dict[str, Row]:
    """Every row by its key."""
    wanted = {field.name for field in fields(Row)} - {"key"}
    made = {}
    for key, values in _read(_SHARED).items():
        _check_keys(f"row {key!r}", values, wanted)
        made[key] = Row(key, **values)
    for row in made.values():
        if row.control_of is not None and (row.control_of not in made or made[row.control_of].defence is None):
            raise InputError(f"row {row.key!r} is the control of {row.control_of!r}", "name a transformation's row")
    return made


@cache
def table_named(name: str) -> Table:
    """The table of that name.

    Raises:
        UsageError: there is none; names the closest.
        InputError: its file is no table's, or has an unknown key, row or threat.
    """
    if name not in table_names():
        raise UsageError(f"there is no table {name!r}", did_you_mean(name, table_names()))
    try:
        return _table(name)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}.toml is no table ({error})", "install quasinat again, or mend the file") from None


def _table(name: str) -> Table:
    values, rows = _read(name), known_rows()
    _check_keys(name, values, {field.name for field in fields(Table)} - {"name"})
    values = {"rows": [], "more": [], "paper": {}, "sweeps": {}} | values
    for key in (*values["rows"], *values["more"], *values["paper"]):
        if key not in rows:
            raise InputError(f"{name} has an unknown row {key!r}", did_you_mean(key, list(rows)))
    if values["threat"] not in THREATS:
        raise InputError(
            f"{name} has an unknown threat {values['threat']!r}", did_you_mean(values["threat"], [*THREATS])
        )
    if not isinstance(values["columns"], list) or not all(isinstance(column, str) for column in values["columns"]):
        raise InputError(f"the columns of {name} are no list of names", 'write them as ["clean", "fgsm-0.08"]')
    chosen: dict[str, Any] = {part: tuple(rows[key] for key in values[part]) for part in ("rows", "more")}
    chosen["sweeps"] = tuple(_sweep(name, axis, given) for axis, given in values["sweeps"].items())
    table = Table(name, **values | chosen | {"columns": tuple(values["columns"])})
    _check_defaults(table)
    return table


def _check_defaults(table: Table) -> None:
    """Each default is a row of the table, under the settings as they are."""
    settings, keys = TableSettings().as_json(), [row.key for row in table.all_rows]
    for sweep in table.sweeps:
        where, wanted = f"the default of the sweep {sweep.axis!r} of {table.name}", sweep.default.value
        if isinstance(wanted, str) and wanted not in settings:
            raise InputError(f"{where} is an unknown setting {wanted!r}", did_you_mean(wanted, list(settings)))
        _, row = sweep.default.among(settings)
        if row not in keys:
            raise InputError(f"{where} is an unknown row {row!r}", did_you_mean(row, keys))


def _sweep(name: str, axis: str, given: Mapping[str, Any]) -> Sweep:
    """The rows of an axis: `{}` in `defence`, `learns` and `epochs` is the value."""
    _check_keys(f"the sweep {axis!r} of {name}", given, {"defence", "learns", "epochs", "values", "default"})
    rows = tuple(
        Row(
            f"{axis.replace(' ', '-')}-{value}",
            f"{axis} = {value}",
            defence=given["defence"].format(value),
            learns=given["learns"].format(value),
            epochs=int(given["epochs"].format(value)) if "epochs" in given else None,
        )
        for value in given["values"]
    )
    _check_keys(f"the default of the sweep {axis!r} of {name}", given["default"], {"row", "value"})
    return Sweep(axis, tuple(given["values"]), rows, Default(**given["default"]))


def _resources() -> Any:
    return files("quasinat.experiments")


def _read(name: str) -> dict[str, Any]:
    paths = (_resources() / folder / f"{name}.toml" for folder in _FOLDERS)
    return tomllib.loads(next(path for path in paths if path.is_file()).read_text(encoding="utf-8"))


def _check_keys(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    for key in values:
        if key not in known:
            raise InputError(f"{where} has an unknown key {key!r}", did_you_mean(key, sorted(known)))
