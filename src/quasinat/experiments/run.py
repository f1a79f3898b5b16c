"""Runs the demonstration from data to result file."""

from pathlib import Path
from typing import Any

from quasinat.experiments.demo import gather, open_demo
from quasinat.experiments.measure import results
from quasinat.experiments.pictures import pictures
from quasinat.experiments.progress import Progress
from quasinat.experiments.settings import DemoSettings
from quasinat.files import read_json, write_json


def run_demo(
    settings: DemoSettings, folder: Path, *, progress: Progress | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Runs, or continues, a demonstration in `folder` and returns what its `results.json` holds.

    Args:
        settings: of the run; see `demo_settings`.
        folder: of the run; one of other settings is refused.
        progress: told of each step; silent by default.
        overwrite: start afresh where `folder` holds a run.

    Raises:
        QuasinatError: the data cannot be used, or the folder is taken or cannot be written.
    """
    demo = open_demo(settings, folder, progress=progress, overwrite=overwrite)
    path = folder / "results.json"
    if path.is_file():
        return read_json(path)
    evidence = gather(demo)
    pictures(demo, evidence)
    outcome = results(demo, evidence)
    write_json(path, outcome)
    return outcome
