"""The cluster page's SLURM script, with two nodes played by two groups of processes on this machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parallel.test_commands import UNIVERSAL, root, tensors  # noqa: F401
from quasinat import cli

pytestmark = pytest.mark.processes
SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "cluster" / "torchrun.slurm"
SRUN = """#!/bin/bash
for node in $(seq "$SLURM_NNODES"); do "$@" & done
wait -n && wait
"""


def test_the_slurm_script_learns_on_two_nodes(root: Path, tmp_path: Path) -> None:  # noqa: F811
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\necho localhost\n"}.items():
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_ID": "7"}
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        ["bash", str(SCRIPT), *UNIVERSAL.split(), f"--root={root}", f"--out={tmp_path / 'together'}"],
        env={**os.environ, **slurm, "PATH": path, "PROCESSES": "1", "PORT": str(port), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("together") == 1
    assert cli.run([*UNIVERSAL.split(), f"--root={root}", f"--out={tmp_path / 'alone'}"]) == 0
    ours, theirs = tensors(tmp_path / "together"), tensors(tmp_path / "alone")
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-5)
