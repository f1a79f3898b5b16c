"""A run of tables on several processes: each fills one row after the other; what rows share, the first comer makes."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quasinat.errors import ProcessError, UsageError, did_you_mean
from quasinat.experiments.progress import Progress, Silent
from quasinat.experiments.ray_engine import started_ray
from quasinat.experiments.table_places import places
from quasinat.experiments.table_run import run_tables
from quasinat.experiments.table_settings import TableSettings
from quasinat.experiments.table_spec import Table


@dataclass(frozen=True)
class Grid:
    """What every worker has to know: the arguments of `run_tables`, but for the row."""

    tables: tuple[Table, ...]
    preset: str
    settings: TableSettings
    root: Path
    out: Path
    device: str
    weights: Path | None
    columns: str

    def fill(self, row: str) -> str:
        """Fills a row's cells."""
        run_tables(
            self.tables,
            self.preset,
            self.settings,
            self.root,
            self.out,
            only=f"{row}/{self.columns}",
            device=self.device,
            weights=self.weights,
        )
        return row


def fill_here(grid: Grid, rows: Sequence[str], workers: tuple[int, int]) -> Iterator[str]:
    """The rows as they are done, by `workers[1]` processes that share the threads that torch may use.

    Raises:
        ProcessError: one of them dies.
    """
    spawned = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers[1])
    with ProcessPoolExecutor(workers[1], spawned, torch.set_num_threads, (threads,)) as pool:
        try:
            for future in as_completed([pool.submit(grid.fill, row) for row in rows]):
                yield future.result()
        except BrokenProcessPool:
            raise ProcessError("a process died", "see if the memory is too small; the same command goes on") from None
        finally:
            pool.shutdown(cancel_futures=True)


def fill_on_ray(grid: Grid, rows: Sequence[str], workers: tuple[int, int]) -> Iterator[str]:
    """The rows as they are done, on a Ray cluster whose nodes all see the folders; where a worker dies, its row again.

    Raises:
        UsageError: Ray is not installed.
    """
    ray = started_ray()
    gpus = ray.cluster_resources().get("GPU", 0) >= 1
    made = ray.data.from_items([{"row": row} for row in rows], override_num_blocks=len(rows)).map(
        _Filler,
        fn_constructor_args=(grid,),
        compute=ray.data.ActorPoolStrategy(min_size=workers[0], max_size=workers[1]),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    return (row["row"] for row in made.iter_rows())


class _Filler:
    """An actor of Ray."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"row": self.grid.fill(row["row"])}


GRID_ENGINES: Mapping[str, Callable[[Grid, Sequence[str], tuple[int, int]], Iterable[str]]] = {
    "local": fill_here,
    "ray": fill_on_ray,
}


def fill_tables(
    grid: Grid,
    *,
    only: str | None = None,
    engine: str = "local",
    workers: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> None:
    """Fills tables by an engine, row by row; `run_tables`, after that, finds every cell there and puts them together.

    Args:
        only: see `places`; its column, if it has one, is `grid.columns`.
        engine: a key of `GRID_ENGINES`.
        workers: at least, and at most.

    Raises:
        UsageError: there is no such engine, or no cell is meant.
    """
    if engine not in GRID_ENGINES:
        raise UsageError(f"there is no engine {engine!r}", did_you_mean(engine, list(GRID_ENGINES)))
    rows = list(dict.fromkeys(place.row.key for place in places(grid.tables, only)))
    with (progress or Silent()).task(f"fill {len(rows)} rows", len(rows)) as report:
        for done, _ in enumerate(GRID_ENGINES[engine](grid, rows, workers), 1):
            report(done)
