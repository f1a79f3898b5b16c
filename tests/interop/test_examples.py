"""The examples of `examples/interop` run as they are and say something."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "interop"
SAID = {
    "art_attacks": (
        r"(?s)FastGradientMethod: \d+% right of 8\nAutoPro.*DeepFool: \d+%.*as a preprocessor.* \d+%",
        "art",
    ),
    "foolbox_attacks": (r"(?s)LinfProjected.*, 2/255: \d+% right of 8\n.*DeepFoolAttack, 8/255: \d+%", "foolbox"),
    "torchattacks_attacks": (r"(?s)PGD: \d+% right of 8\nAPGD: \d+% .*\nCW: \d+%", "torchattacks"),
    "hugging_face": (r"(?s)leaves \d+% of 8 answers.*\nPGD changes [1-9]\d*% of them", "transformers"),
    "robustbench_fields": (r'(?s)"autoattack_acc": "[\d.]+".*"leaderboard_eligible": false', "pyautoattack"),
    "pipeline": (r"\(32, 32\) \d\d\.\d dB", "PIL"),
}
# All of them in one process, so that the small module they share is made once.
DRIVER = """
import runpy, sys, traceback
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    print(f"== {name}", flush=True)
    try:
        runpy.run_path(f"{sys.argv[1]}/{name}.py", run_name="__main__")
    except Exception:
        print(traceback.format_exc(), flush=True)
"""


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each example printed, those left out whose package is not installed."""
    names = [name for name, (_, package) in SAID.items() if find_spec(package)]
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, str(FOLDER), *names],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    parts = re.split(r"^== (\w+)\n", ran.stdout, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_example_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {"small", *SAID}


@pytest.mark.parametrize("name", list(SAID))
def test_an_example_runs(name: str, said: dict[str, str]) -> None:
    wanted, package = SAID[name]
    pytest.importorskip(package)
    assert re.search(wanted, said[name]), said[name]
