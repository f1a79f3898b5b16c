"""A table's file that could not be run as it is written is refused by name, before anything is run."""

from dataclasses import replace
from typing import Any

import pytest

from quasinat.errors import InputError
from quasinat.experiments import table_spec
from quasinat.experiments.table_checks import check_table
from quasinat.experiments.table_spec import Row, known_rows, table_named


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "cifar"}, "table1 has an unknown image set 'cifar'; did you mean 'cifar10'"),
        ({"columns": ("clean", "fsgm-0.08")}, "table1: there is no column 'fsgm-0.08'; did you mean 'fgsm-0.08'"),
        ({"columns": ("fgsm-0.0.8",)}, "the column 'fgsm-0.0.8' has no size"),
        ({"columns": ("fgsm--0.08",)}, "there is no column 'fgsm--0.08'"),
        ({"columns": ("fgsm-nan",)}, "the column 'fgsm-nan' has no size"),
        ({"columns": ("gaussian-noise-6",)}, "there is no column 'gaussian-noise-6'"),
        ({"paper": {"none": {"claen": 0.93}}}, "of 'none' in an unknown column 'claen'; did you mean 'clean'"),
        ({"paper": {"none": {"clean": 92.98}}}, "has 92.98 as the printed accuracy of 'none' at clean"),
        ({"more": (Row("one", "One", network="fgms"),)}, "'one' has an unknown network 'fgms'; did you mean 'fgsm'"),
        (
            {"more": (Row("one", "One", defence="jepg:quality=2"),)},
            "has an unknown transformation 'jepg'; did you mean",
        ),
        ({"more": (Row("one", "One", defence="stl", learns="layers"),)}, "'one' learns an unknown kind 'layers'"),
    ],
)
def test_what_nothing_answers_to_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_table(replace(table_named("table1"), **changed))


def test_the_kinds_of_columns_that_there_are_pass() -> None:
    columns = ("clean", "fgsm-0.08", "fgsm-mean-0.06", "pgd-linf-0.031", "universal-0.08", "jpeg-5")
    check_table(replace(table_named("table1"), columns=columns, paper={}))


@pytest.mark.parametrize("columns", ["clean", [0.08], {"clean": 1}])
def test_columns_are_a_list_of_names(columns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known_rows()  # read before its file is replaced by the table's
    values = {"title": "One", "caption": "", "data": "cifar10", "threat": "retrained", "columns": columns}
    monkeypatch.setattr(table_spec, "_read", lambda name: values)
    with pytest.raises(InputError, match="the columns of table1 are no list of names"):
        table_spec._table("table1")
