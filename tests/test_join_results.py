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
    result: Any = read_json(TABLES / f"{NAME}.json")
    result.pop("joined", None)  # as if it had been filled by one run
    with np.load(TABLES / f"{NAME}.npz") as file:
        return result, dict(file)


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


@pytest.mark.parametrize(
    "changed", [{"dissimilarity": 0.0790}, {"digest": "b" * 64}], ids=["another strength", "other images"]
)
def test_equal_outcomes_of_attacks_that_differ_are_no_reason_to_join(
    join: ModuleType, whole: Any, changed: dict[str, Any]
) -> None:
    """As where the undefended network gets nothing right under either."""
    column, (result, outcomes) = "fgsm-0.08", whole
    strengths = {name: {"digest": "a" * 64} | used for name, used in result["strengths"].items()}
    strengths[column] |= changed
    ours = result | {"strengths": {name: {"digest": "a" * 64} | used for name, used in result["strengths"].items()}}
    apart = join.attacked_apart(ours, result | {"strengths": strengths})
    assert apart == {column}
    assert column not in join.shared_columns(outcomes, outcomes, apart)
    assert join.attacked_apart(result, ours) == set()  # an older file has no digests
    slower = {name: used | {"seconds": 1e6} for name, used in ours["strengths"].items()}
    assert join.attacked_apart(ours, ours | {"strengths": slower}) == set()


def test_the_control_of_a_table_without_retraining_is_its_sisters(join: ModuleType, whole: Any, tmp_path: Path) -> None:
    for name in ("table1-small", "table5-small"):
        for kind in (".json", ".npz"):
            (tmp_path / f"{name}{kind}").write_bytes((TABLES / f"{name}{kind}").read_bytes())
    path = tmp_path / "table5-small.json"
    before: Any = read_json(path)
    before["rows"] = [row for row in before["rows"] if row["key"] != "control"]
    before["strengths"]["bim-0.03"]["dissimilarity"] *= 1.1  # as if that attack had been another
    write_json(path, before)
    join.add_controls(tmp_path)
    made: Any = read_json(path)
    rows, first = ({row["key"]: row for row in result["rows"]} for result in (made, whole[0]))
    assert [row["key"] for row in made["rows"] if row["key"] != "control"] == [row["key"] for row in before["rows"]]
    assert list(rows).index("control") == sum(row["in_paper"] for row in before["rows"])
    control = rows["control"]["cells"]
    assert control.keys() == rows["none"]["cells"].keys()
    assert {name for name, cell in control.items() if cell["status"] == "not run"} == {"bim-0.03"}
    assert all(cell == first["control"]["cells"][name] for name, cell in control.items() if name != "bim-0.03")
    with np.load(path.with_suffix(".npz")) as file:
        assert file["control/clean"].tolist() == whole[1]["control/clean"].tolist()
    join.add_controls(tmp_path)  # once is enough
    assert read_json(path) == made
