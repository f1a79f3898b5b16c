"""`torchrun` with two processes: the files of one, and of an undisturbed job where a process was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from quasinat import cli
from quasinat.data import photographs
from quasinat.files import read_tensors

pytestmark = pytest.mark.processes
DICTIONARIES = "--filters 6 --size 5 --passes 4 --tolerance 0 --learner consensus"
UNIVERSAL = f"learn layer --data folder --universal {DICTIONARIES}"
LEARN = f"learn layer --data folder --epochs 2 --strata 2 --components 8 {DICTIONARIES}"
TRAIN = "train vanilla --data folder --epochs 8 --batch-size 16 --device cpu"
LEFT = {LEARN: "learning/dictionary-0.safetensors", TRAIN: "training/steps/training.safetensors"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty training and eight test images of two classes, 32 px."""
    root, seen = tmp_path_factory.mktemp("root"), photographs(32, colour=True, train_per_class=24, test_per_class=1)
    for half, images in {"train": seen.train_images[:40], "val": seen.train_images[40:48]}.items():
        for number, image in enumerate(images):
            path = root / half / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(path)
    return root


def started(command: str, root: Path, out: Path, *, restarts: int = 0) -> subprocess.Popen[str]:
    together = ["--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}", "-m", "quasinat"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *together, *command.split(), f"--root={root}", f"--out={out}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def tensors(path: Path) -> dict[str, Tensor]:
    return read_tensors(path)[0]


@pytest.fixture(scope="module")
def undisturbed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files that two processes write, by the command; each says so once."""
    found = {}
    for command in (UNIVERSAL, *LEFT):
        out = tmp_path_factory.mktemp("together") / "file"
        process = started(command, root, out)
        printed, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
        assert printed.count(str(out)) == 1
        assert list(out.parent.iterdir()) == [out]
        found[command] = out
    return found


def test_two_processes_write_the_file_of_one(root: Path, undisturbed: dict[str, Path], tmp_path: Path) -> None:
    """Of dictionaries; a training's rounding is amplified by its optimiser, and is compared in float64 elsewhere."""
    out = tmp_path / "alone"
    assert cli.run([*UNIVERSAL.split(), f"--root={root}", f"--out={out}"]) == 0
    ours, theirs = tensors(undisturbed[UNIVERSAL]), tensors(out)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("command", LEFT, ids=["learn", "train"])
def test_a_job_with_a_killed_process_ends_as_if_undisturbed(
    command: str, root: Path, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "file"
    process = started(command, root, out, restarts=1)
    kept = tmp_path / f"file.{LEFT[command]}"
    deadline = time.monotonic() + 60
    while not kept.is_file():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    complaints = process.communicate(timeout=120)[1]
    assert process.returncode == 0, complaints
    assert "exitcode: -9" in complaints
    ours, theirs = tensors(out), tensors(undisturbed[command])
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def test_other_commands_are_the_work_of_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.run(["demo"]) == 2
    assert "demo is the work of one process, not of 2; start it without torchrun" in capsys.readouterr().err


def test_a_process_of_a_job_ends_with_its_status_whatever_python_would_meet_at_its_end() -> None:
    """As a thread that aborts it there; what it printed is not lost."""
    code = "import atexit, os; atexit.register(os.abort); from quasinat.cli import main; main()"
    for count, status in (("2", 0), ("1", -signal.SIGABRT)):
        environment = {**os.environ, "WORLD_SIZE": count}
        done = subprocess.run([sys.executable, "-c", code, "learn", "--help"], capture_output=True, env=environment)
        assert done.returncode == status
        assert b"dictionaries" in done.stdout
