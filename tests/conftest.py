"""Runs the whole package under beartype with jaxtyping's shape checks, deterministic, two threads in all at most."""

import os
from pathlib import Path

import jaxtyping
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # what the tests start has no more processors than they have
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_hook = jaxtyping.install_import_hook("quasinat", "beartype.beartype")
_hook.__enter__()

import torch  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton looks when it is imported, whoever imports it first
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, torch.get_num_threads()))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real image sets; the test is skipped, visibly, where none is named."""
    root = os.environ.get("QUASINAT_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("real data: set QUASINAT_DATA to a folder with cifar-10-batches-py")
    return Path(root)


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """The file of a MobileNetV2's weights; the test is skipped, visibly, where none is named."""
    path = os.environ.get("QUASINAT_WEIGHTS")
    if not path or not Path(path).is_file():
        pytest.skip("weights: set QUASINAT_WEIGHTS to a safetensors file of MobileNetV2")
    return Path(path)
