"""The tasks of a job on this machine: one after the other in this process, or shared among several."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import torch

from quasinat.errors import ProcessError
from quasinat.experiments.devices import device_named
from quasinat.experiments.shard_tasks import Job, Record, Task, run_task, run_tasks
from quasinat.experiments.transforms import NamedTransform

PATIENCE = 3  # how often a process may die in a row before a task is done

_here: tuple[Job, NamedTransform]  # of a process of the pool


def run_here(job: Job, tasks: Sequence[Task], workers: tuple[int, int]) -> Iterator[Record]:
    """The records of the tasks as they are done, by `workers[1]` processes that share the threads that torch may use.

    The processes take a GPU each where there are some, in turn. When one of them dies, the tasks that are not done are
    begun again.

    Raises:
        ProcessError: that happens over and over.
        QuasinatError: of a task.
    """
    if workers[1] > 1:
        return _shared(job, tasks, workers[1])
    device = device_named("auto")
    return run_tasks(job, job.load().to(device), tasks, at_once=1 if device == "cpu" else 2)


def _shared(job: Job, tasks: Sequence[Task], count: int) -> Iterator[Record]:
    spawned = multiprocessing.get_context("spawn")
    left, failures = list(tasks), 0
    while left:
        started = spawned.Value("i", 0)
        threads = max(1, torch.get_num_threads() // count)
        with ProcessPoolExecutor(count, spawned, _begin, (job, threads, started)) as pool:
            running = {pool.submit(_do, task): task for task in left}
            try:
                for future in as_completed(running):
                    record = future.result()
                    left.remove(running[future])
                    failures = 0
                    yield record
            except BrokenProcessPool:
                failures += 1
                if failures == PATIENCE:
                    problem = f"{PATIENCE} times in a row a process died over {left[0].name} or one of those after it"
                    raise ProcessError(problem, "see whether the memory is too small; try fewer --workers") from None
            finally:
                pool.shutdown(cancel_futures=True)


def _begin(job: Job, threads: int, started: "Synchronized[int]") -> None:
    """What a process of the pool does first."""
    global _here
    torch.set_num_threads(threads)
    device = device_named("auto")
    if device == "cuda":
        with started.get_lock():
            torch.cuda.set_device(started.value % torch.cuda.device_count())
            started.value += 1
    _here = job, job.load().to(device)


def _do(task: Task) -> Any:
    return run_task(*_here, task)
