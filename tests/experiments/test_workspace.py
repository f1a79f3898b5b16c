from pathlib import Path

import pytest
import torch

from quasinat.errors import InputError, UsageError
from quasinat.experiments.workspace import Step, Workspace


def step_of(value: float, calls: list[float]) -> Step:
    calls.append(value)
    return {"x": torch.tensor([value])}, {"note": "kept"}


def test_a_step_is_computed_once_and_read_after_that(tmp_path: Path) -> None:
    calls: list[float] = []
    for _ in range(2):
        workspace = Workspace(tmp_path / "run", {"a": 1})
        tensors, values = workspace.step("one", lambda: step_of(3.0, calls))
        assert tensors["x"].item() == 3.0
        assert values["note"] == "kept"
        assert workspace.seconds["one"] == values["seconds"]
    assert calls == [3.0]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert Workspace(tmp_path / "run", {}).folder.is_dir()


def test_another_runs_folder_is_refused_and_overwriting_clears_its_steps(tmp_path: Path) -> None:
    folder, calls = tmp_path / "run", []
    Workspace(folder, {"a": 1}).step("one", lambda: step_of(1.0, calls))
    (folder / "universal.stl").write_bytes(b"old layer")
    with pytest.raises(UsageError, match="--overwrite"):
        Workspace(folder, {"a": 2})
    fresh = Workspace(folder, {"a": 2}, overwrite=True)
    assert not (folder / "universal.stl").exists()
    assert fresh.step("one", lambda: step_of(2.0, calls))[0]["x"].item() == 2.0


def test_a_folder_of_other_files_is_never_touched(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="holds no run of ours"):
            Workspace(tmp_path, {}, overwrite=overwrite)
    assert precious.read_text() == "years of work"
    with pytest.raises(UsageError, match="is a file"):
        Workspace(precious, {})


def test_a_damaged_step_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "run", {})
    workspace.step("one", lambda: step_of(1.0, []))
    path = workspace.steps / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"one\.safetensors is damaged"):
        workspace.step("one", lambda: step_of(1.0, []))
