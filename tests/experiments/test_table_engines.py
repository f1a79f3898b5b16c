"""A grid filled by several processes has the cells of one, and what its rows share is made once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quasinat import cli
from quasinat.errors import UsageError
from quasinat.experiments.table_engines import Grid, fill_tables
from quasinat.experiments.table_run import run_tables
from quasinat.experiments.table_settings import PRESETS
from quasinat.experiments.table_spec import table_named
from quasinat.files import read_json

TINY = replace(PRESETS["smoke"], train=16, test=4, epochs=1, bim_steps=2)
ROWS, COLUMNS = "m*[en]", "[cf]*[n8]"  # mean and median; clean, under FGSM and under one that is matched


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageNet-10 of two classes."""
    folder = tmp_path_factory.mktemp("grid")
    generator = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2)):
        for name in ("n01440764", "n02102040"):
            (folder / "imagenet10" / part / name).mkdir(parents=True)
            for number in range(count):
                rough = generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(rough).resize((70, 70)).save(folder / "imagenet10" / part / name / f"{number}.png")
    return folder


def run(root: Path, out: Path) -> dict[str, Any]:
    """What one process makes of the rows, or finds."""
    table = table_named("table2a")
    return run_tables([table], "tiny", TINY, root, out, only=f"{ROWS}/{COLUMNS}", device="cpu")["table2a"]


def cells(result: dict[str, Any]) -> dict[str, float]:
    """Every number of the cells that are there, but for how long they took."""
    return {
        f"{row['key']}/{column}/{name}": value
        for row in result["rows"]
        for column, cell in row["cells"].items()
        if cell["status"] == "done"
        for name, value in cell.items()
        if name not in ("status", "seconds")
    }


def grid_of(root: Path, out: Path) -> Grid:
    return Grid((table_named("table2a"),), "tiny", TINY, root, out, "cpu", None, COLUMNS)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the workers have: on two, training rounds in another way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.processes
@pytest.mark.filterwarnings("ignore")
def test_several_processes_fill_the_cells_of_one_and_share_what_they_make(
    root: Path, tmp_path: Path, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = cells(run(root, tmp_path / "alone"))
    assert sum(name.endswith("/value") for name in alone) == 6
    for engine in ("local", "ray"):
        out = tmp_path / engine
        fill_tables(grid_of(root, out), only=f"{ROWS}/{COLUMNS}", engine=engine, workers=(2, 2))
        kept = {path: path.stat().st_mtime_ns for path in (out / "imagenet10-64-tiny").rglob("*.safetensors")}
        assert cells(run(root, out)) == pytest.approx(alone, rel=1e-3)
        assert {path.stem for path in kept if path.parent.name == "networks"} == {"vanilla", "on-mean", "on-median"}
        assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing was left to make
        assert not list(out.rglob("*.lock"))


def test_the_command_takes_engines_and_says_what_does_not_go_together(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def fill(grid: Grid, rows: Any, workers: Any) -> list[str]:
        asked.append((grid, rows, workers))
        return list(rows)

    monkeypatch.setitem(PRESETS, "smoke", TINY)
    monkeypatch.setattr("quasinat.experiments.table_engines.GRID_ENGINES", {"local": fill, "ray": fill})
    command = ["run", "table2a", "--preset", "smoke", "--root", str(root), "--out", str(tmp_path), "--device", "cpu"]
    command += ["--only", "mean/clean"]
    assert cli.run([*command, "--workers", "2"]) == 0
    ((grid, rows, workers),) = asked
    assert (rows, workers, grid.columns, grid.settings) == (["mean"], (2, 2), "clean", TINY)
    assert read_json(tmp_path / "table2a-smoke.json")["table"] == "table2a"
    capsys.readouterr()
    for more, said in (
        (["--workers", "2", "--shard", "1/2"], "--shard is no option of several workers"),
        (["--workers", "2", "--overwrite"], "--overwrite is no option of several workers"),
        (["--workers", "3,2"], "--workers 3,2 is no range"),
        (["--engine", "rays"], "did you mean 'ray'"),
    ):
        assert cli.run([*command, *more]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(UsageError, match="means no cell"):
        fill_tables(grid, only="nothing/clean")
