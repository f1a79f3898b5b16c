"""What a table's file can get wrong beside its keys: names that nothing answers to, and accuracies that are none."""

from collections.abc import Iterable

from quasinat.defences import DEFENCES
from quasinat.errors import InputError, UsageError, did_you_mean
from quasinat.evaluation import CORRUPTIONS
from quasinat.evaluation.corruptions import SEVERITIES
from quasinat.experiments.columns import CLEAN
from quasinat.experiments.table_attacks import attack_and_size
from quasinat.experiments.table_images import IMAGE_SETS
from quasinat.experiments.table_learned import LEARNED
from quasinat.experiments.table_networks import NETWORKS
from quasinat.experiments.table_spec import Row, Table

CLASSIFIER = "classifier"  # what a defence "learns" that looks at the attacked classifier itself


def check_table(table: Table) -> None:
    """Refuses a table that could not be run as it is written, before anything of it is.

    Raises:
        InputError: an unknown image set, column, transformation or network, or a printed accuracy outside [0, 1] or of
            a column that the table does not have; with the closest known name.
    """
    _known(table.data, IMAGE_SETS, f"{table.name} has an unknown image set")
    for column in table.columns:
        _check_column(table.name, column)
    for row in table.all_rows:
        _check_row(row)
    for key, printed in table.paper.items():
        for column, value in printed.items():
            _known(column, table.columns, f"{table.name} has a printed accuracy of {key!r} in an unknown column")
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                problem = f"{table.name} has {value!r} as the printed accuracy of {key!r} at {column}"
                raise InputError(problem, "write it as a share, as 0.93")


def _check_column(table: str, column: str) -> None:
    name, _, severity = column.rpartition("-")
    if column == CLEAN or (name in CORRUPTIONS and severity in map(str, SEVERITIES)):
        return
    try:
        attack_and_size(column)
    except UsageError as error:
        raise InputError(f"{table}: {error.problem}", error.remedy) from None


def _check_row(row: Row) -> None:
    if row.defence is not None:
        _known(row.defence.partition(":")[0], DEFENCES, f"the row {row.key!r} has an unknown transformation")
    if row.network is not None:
        _known(row.network, NETWORKS, f"the row {row.key!r} has an unknown network")
    if row.learns is not None:
        _known(row.learns.partition(":")[0], (*LEARNED, CLASSIFIER), f"the row {row.key!r} learns an unknown kind")


def _known(name: str, known: Iterable[str], problem: str) -> None:
    if name not in known:
        raise InputError(f"{problem} {name!r}", did_you_mean(name, list(known)))
