"""The whole demonstration at a size that takes seconds, run once for all the tests that look at it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quasinat.experiments import DemoSettings, run_demo

MICRO = DemoSettings(
    train_per_class=10,
    test_per_class=4,
    epochs=2,
    autoencoder_images=60,
    autoencoder_epochs=1,
    strata=2,
    filters=5,
    filter_size=6,
    dictionary_images=8,
    dictionary_passes=2,
    bim_steps=3,
    cw_steps=4,
    cw_search_steps=2,
    white_box_images=6,
    white_box_steps=2,
    trade_off=(0.2, 0.4),
    trade_off_images=10,
)


@pytest.fixture(scope="session")
def micro_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run: its folder and its results."""
    folder = tmp_path_factory.mktemp("micro") / "run"
    return folder, run_demo(MICRO, folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of two workers on this machine, whose processes find the test modules."""
    ray = pytest.importorskip("ray")
    seen = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=seen)
    yield
    ray.shutdown()
