"""Result files that were filled apart are joined if their images met the same attacks, and refused if not."""

from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pages import page_module
from quasinat.errors import UsageError
from quasinat.files import read_json, write_json, write_npz

TABLES = Path(__file__).resolve().parents[1] / "results" / "tables"
NAME = "table1-small"


@pytest.fixture(scope="module")
def join() -> ModuleType:
    return page_module("join_results")


@pytest.fixture
def whole() -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    with np.load(TABLES / f"{NAME}.npz") as file:
        return read_json(TABLES / f"{NAME}.json"), dict(file)


def without(
    whole: tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]], *keys: str
) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """As if these rows had not been run."""
    result, outcomes = deepcopy(whole[0]), dict(whole[1])
    for row in result["rows"]:
        if row["key"] in keys:
            row["cells"] = {column: {"status": "not run"} for column in row["cells"]}
    return result, {name: value for name, value in outcomes.items() if name.split("/")[0] not in keys}


def test_two_halves_make_the_whole(join: ModuleType, whole: Any, tmp_path: Path) -> None:
    for folder, (result, outcomes) in {
        "one": without(whole, "stl", "magnet"),
        "other": without(whole, "tvm", "control"),
    }.items():
        write_json(tmp_path / folder / f"{NAME}.json", result)
        write_npz(tmp_path / folder / f"{NAME}.npz", outcomes)
    for folder in ("one", "other", "one"):
        join.join_into(tmp_path / folder, tmp_path / "all")
    made: Any = read_json(tmp_path / "all" / f"{NAME}.json")
    assert made.pop("joined") == [made["provenance"]]
    whole[0].pop("joined", None)
    assert made == whole[0]
    with np.load(tmp_path / "all" / f"{NAME}.npz") as file:
        assert {name: value.tolist() for name, value in file.items()} == {k: v.tolist() for k, v in whole[1].items()}


def test_other_settings_and_other_attacked_images_are_refused(join: ModuleType, whole: Any) -> None:
    result, outcomes = whole
    with pytest.raises(UsageError, match="differ in their settings"):
        join.joined(result, result | {"settings": result["settings"] | {"seed": 7}}, set())
    flipped = outcomes | {"stl/fgsm-0.08": ~outcomes["stl/fgsm-0.08"]}
    with pytest.raises(UsageError, match=r"differ in stl/fgsm-0\.08"):
        join.shared_columns(outcomes, flipped)
    apart = {"labels": outcomes["labels"], "stl/clean": outcomes["stl/clean"]}
    with pytest.raises(UsageError, match="agree in no column"):
        join.shared_columns(outcomes, apart)


def test_a_column_whose_attack_differs_is_left_as_it_is(join: ModuleType, whole: Any, tmp_path: Path) -> None:
    column = "bim-0.03@0.1803"
    result, outcomes = without(whole, "stl")
    other = whole[1] | {f"{key}/{column}": ~whole[1][f"{key}/{column}"] for key in ("none", "stl")}
    for folder, (values, arrays) in {"one": (result, outcomes), "other": (whole[0], other)}.items():
        write_json(tmp_path / folder / f"{NAME}.json", values)
        write_npz(tmp_path / folder / f"{NAME}.npz", arrays)
    join.join_into(tmp_path / "other", tmp_path / "one")
    made: Any = read_json(tmp_path / "one" / f"{NAME}.json")
    stl = next(row["cells"] for row in made["rows"] if row["key"] == "stl")
    assert {name for name, cell in stl.items() if cell["status"] == "not run"} == {column}
    with np.load(tmp_path / "one" / f"{NAME}.npz") as file:
        assert f"stl/{column}" not in file
        assert file[f"none/{column}"].tolist() == outcomes[f"none/{column}"].tolist()
