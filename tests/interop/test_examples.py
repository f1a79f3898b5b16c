"""The examples of `examples/interop` run as they are and say something."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "interop"
SAID = {
    "art_attacks": (
        r"(?s)FastGradientMethod: \d+% right of 8\nAutoPro.*DeepFool: \d+%.*as a preprocessor.* \d+%",
        "art",
    ),
    "foolbox_attacks": (r"(?s)LinfProjected.*, 2/255: \d+% right of 8\n.*DeepFoolAttack, 8/255: \d+%", "foolbox"),
    "robustbench_fields": (r'(?s)"autoattack_acc": "[\d.]+".*"leaderboard_eligible": false', "pyautoattack"),
    "pipeline": (r"\(32, 32\) \d\d\.\d dB", "PIL"),
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {"small", *SAID}


@pytest.mark.parametrize("name", list(SAID))
def test_an_example_runs(name: str) -> None:
    said, package = SAID[name]
    pytest.importorskip(package)
    ran = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(said, ran.stdout), ran.stdout
