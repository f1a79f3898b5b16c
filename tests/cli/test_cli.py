import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.conftest import MICRO
from quasinat import __version__, cli
from quasinat.experiments import DemoSettings, settings

COMMAND = [sys.executable, "-c", "from quasinat.cli import main; main()"]
SMALL = ["--preset", "tiny", "--train-per-class", "8", "--test-per-class", "3", "--epochs", "2", "--filters", "4"]


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> DemoSettings:
    monkeypatch.setitem(settings.PRESETS, "tiny", MICRO)
    return MICRO


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("quasinat: ")
    return lines[0]


def test_the_demo_ends_in_a_table_and_a_page(
    micro: DemoSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--preset", "tiny", "--out", str(tmp_path / "run")]
    assert cli.run(arguments) == 0
    captured = capsys.readouterr()
    assert "STL (cluster)" in captured.out
    assert "white-box" in captured.out.lower()
    assert "train the vanilla classifier" in captured.err
    assert (tmp_path / "run" / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert cli.run([*arguments, "--json"]) == 0
    results: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert results["settings"]["filters"] == micro.filters


def test_info_says_which_solvers_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["info"]) == 0
    printed = capsys.readouterr().out
    assert "solver coordinate-descent" in printed
    monkeypatch.setenv("QUASINAT_NO_KERNEL", "1")
    assert cli.run(["info", "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert facts["solver coordinate-descent"] == "the kernel is switched off by QUASINAT_NO_KERNEL"
    assert facts["solver auto"].startswith("admm on a CPU")
    assert facts["quasinat"] == __version__


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["demo", "--bogus"], 2, ["--bogus", "demo --help"]),
        (["demo", "--filters", "many"], 2, ["--filters", "demo --help"]),
        (["demoo"], 2, ["demoo", "--help"]),
        (["demo", "--filters", "0"], 2, ["--filters 0", "positive"]),
        (["demo", "--preset", "smal"], 2, ["smal", "small"]),
        (["demo", "--network", "vgg17"], 2, ["vgg17", "vgg16"]),
        (["demo", "--lambda", "nan"], 2, ["--lambda nan"]),
        (["demo", "--image-size", "31"], 2, ["31", "32, 48 or 64"]),
        (["demo", "--data", "cifar10"], 2, ["cifar10", "--root"]),
        (["demo", "--data", "cifar10", "--root", "nowhere"], 1, ["nowhere", "cifar-10"]),
        (["demo", "--data", "folder", "--root", "nowhere"], 1, ["nowhere"]),
        (["demo", "--filter-size", "33"], 1, ["33", "--filter-size"]),
    ],
)
def test_bad_usage_is_one_line_with_a_remedy(
    arguments: list[str], status: int, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    extra = ["--out", str(out)] if arguments[0] == "demo" else []
    assert cli.run([*arguments, *extra]) == status
    line = one_line(capsys)
    assert all(part in line for part in parts), line
    assert not out.exists()


def test_an_output_folder_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert cli.run(["demo", "--out", str(tmp_path), "--overwrite"]) == 2
    assert "choose another --out" in one_line(capsys)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_version_help_and_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert cli.run(["demo", "--help"]) == 0
    assert "quasinat demo --out my-demo" in capsys.readouterr().out
    assert cli.run([]) == 2
    assert "demo" in capsys.readouterr().out


def heed_ctrl_c() -> None:
    """What runs in the background of a shell script ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_cleanly_and_the_same_command_continues(tmp_path: Path) -> None:
    # Epochs enough that the signal comes in the middle of a training, whatever the machine's speed.
    command = [*COMMAND, "demo", *SMALL, "--epochs", "15", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "control classifier" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert rest.strip().splitlines()[-1] == "quasinat: interrupted; the same command continues where it can"
    assert not list((tmp_path / "run").rglob("*.part"))
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert again.returncode == 0, again.stderr
    assert "train the vanilla classifier" not in again.stderr
    assert (tmp_path / "run" / "page.html").is_file()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    command = [*COMMAND, "demo", *SMALL, "--out", str(tmp_path / "run")]

    def limit() -> None:  # a file that grows past this fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, preexec_fn=limit)
    assert ended.returncode == 1
    line = ended.stderr.strip().splitlines()[-1]
    assert "no space left" in line
    assert "rerun" in line
    assert "Traceback" not in ended.stderr
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["run.json"]
