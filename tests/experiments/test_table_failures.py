"""What goes wrong in one cell of a table is a status of that cell, and the others are filled."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.tiny_cifar10 import tiny_cifar10
from quasinat import cli
from quasinat.experiments import table_cells, table_run
from quasinat.experiments.table_run import run_tables
from quasinat.experiments.table_settings import PRESETS
from quasinat.experiments.table_spec import Table, table_named
from quasinat.report.table_sheet import table_markdown

TINY = replace(PRESETS["smoke"], train=50, test=10, epochs=1, bim_steps=2, cw_steps=2, cw_search_steps=1)
TABLE = replace(table_named("table5"), columns=("clean", "fgsm-0.08"), paper={})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A CIFAR-10 of fifty training and ten test images."""
    folder = tmp_path_factory.mktemp("failures")
    with pytest.MonkeyPatch.context() as patch:
        tiny_cifar10(folder, patch)
        yield folder


def filled(root: Path, out: Path, only: str, table: Table = TABLE) -> dict[str, dict[str, Any]]:
    """The cells by row."""
    result = run_tables([table], "tiny", TINY, root, out, only=only, device="cpu")["table5"]
    return {row["key"]: row["cells"] for row in result["rows"]} | {"whole": result}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA out of memory"), r"RuntimeError: CUDA out of memory \(test_table_failures.py, line \d+\)"),
        (OSError(28, "No space left on device"), r"OSError: \[Errno 28\] No space left on device \(test_table"),
        (MemoryError(), r"MemoryError:  ?\(test_table_failures.py"),
        (ZeroDivisionError("two\nlines\x1b[2J"), r"ZeroDivisionError: two lines\\x1b\[2J \(test_table"),
    ],
)
def test_an_error_of_any_kind_is_one_cells(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    original = table_cells.cell

    def failing(parts: Any, row: Any, column: str, threat: str) -> Any:
        if column == "fgsm-0.08":
            raise error
        return original(parts, row, column, threat)

    with monkeypatch.context() as patch:
        patch.setattr(table_run, "cell", failing)
        found = filled(root, tmp_path, "none")
    assert found["none"]["clean"]["status"] == "done"
    assert found["none"]["fgsm-0.08"]["status"] == "failed"
    assert re.search(reason, found["none"]["fgsm-0.08"]["reason"])
    assert found["none"]["fgsm-0.08"]["reason"] in table_markdown(found["whole"])
    assert filled(root, tmp_path, "none")["none"]["fgsm-0.08"]["status"] == "done"  # nothing of it was kept


@pytest.mark.parametrize("damaged", ["cell-gray-box-none-fgsm-0.08", "fgsm-0.08-on-vanilla"])
def test_a_damaged_step_is_the_failure_of_its_cells_alone(root: Path, tmp_path: Path, damaged: str) -> None:
    sound = filled(root, tmp_path, "none")
    step = tmp_path / "cifar10-tiny" / "steps" / f"{damaged}.safetensors"
    step.write_bytes(step.read_bytes()[:100])
    found = filled(root, tmp_path, "[nj]*")  # none and jpeg
    assert found["none"]["clean"] == sound["none"]["clean"]
    assert found["jpeg"]["clean"]["status"] == "done"
    behind = found["none" if "cell" in damaged else "jpeg"]["fgsm-0.08"]
    assert behind["status"] == "failed"
    assert f"{damaged}.safetensors is damaged" in behind["reason"]
    assert ("fgsm-0.08" in found["whole"]["strengths"]) == ("cell" in damaged)
    step.unlink()
    again = filled(root, tmp_path, "[nj]*")
    assert again["none"]["fgsm-0.08"]["value"] == sound["none"]["fgsm-0.08"]["value"]
    assert again["jpeg"]["fgsm-0.08"]["status"] == "done"


def test_the_command_ends_with_status_1_and_the_first_reason(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    arguments = ["run", "table5", "--preset", "smoke", "--root", str(root), "--out", str(tmp_path), "--device", "cpu"]
    assert cli.run([*arguments, "--only", "none/clean"]) == 0
    step = tmp_path / "cifar10-smoke" / "steps" / "cell-gray-box-none-clean.safetensors"
    step.write_bytes(b"")
    assert cli.run([*arguments, "--only", "none/clean"]) == 1
    said = capsys.readouterr()
    assert "| No defence | failed (93) |" in said.out
    assert "1 of the cells failed, the first of them table5 none/clean: " in said.err
    assert (tmp_path / "table5-smoke.md").is_file()


def test_the_images_of_an_attack_have_a_digest_that_two_runs_share(root: Path, tmp_path: Path) -> None:
    one, other = (filled(root, tmp_path / name, "none")["whole"]["strengths"] for name in "ab")
    assert len(one["fgsm-0.08"]["digest"]) == 64
    assert one == other


KILLED = """
import sys
from quasinat import cli
import quasinat.data.cifar10
from quasinat.experiments.table_settings import PRESETS, TableSettings
sys.modules["quasinat.data.cifar10"]._PER_BATCH = 10
PRESETS["smoke"] = TableSettings(**eval(sys.argv[1]))
sys.exit(cli.run(sys.argv[2:]))
"""


def test_a_command_that_is_killed_goes_on_and_ends_the_same(root: Path, tmp_path: Path) -> None:
    """SIGKILL once the first piece of work is there, again and again, until a run gets through."""
    settings = TINY.as_json() | {"epochs": 4}
    out = tmp_path / "out"

    def started(folder: Path) -> subprocess.Popen[bytes]:
        command = ["run", "table1", "--only", "[nj]*/fgsm", "--preset", "smoke", "--device", "cpu"]
        places = ["--root", str(root), "--out", str(folder)]
        return subprocess.Popen([sys.executable, "-c", KILLED, repr(settings), *command, *places])

    def pieces() -> int:
        return sum(path.is_file() for path in out.rglob("*.safetensors"))

    for _ in range(3):
        before, process = pieces(), started(out)
        while process.poll() is None and pieces() <= before:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
    assert pieces() >= 3
    assert started(out).wait() == 0
    assert started(tmp_path / "whole").wait() == 0
    ends = [(folder / "table1-smoke.npz").read_bytes() for folder in (out, tmp_path / "whole")]
    assert ends[0] == ends[1]
