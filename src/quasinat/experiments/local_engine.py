"""The tasks of a job on this machine: one after the other in this process, or shared with others."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized

import torch

from quasinat.errors import ProcessError
from quasinat.experiments.devices import device_named
from quasinat.experiments.shard_tasks import Job, Record, Task, run_task, run_tasks
from quasinat.experiments.transforms import NamedTransform

PATIENCE = 3  # how often a process may die in a row before a task is done

_theirs: tuple[Job, NamedTransform]  # of a process that was started


def run_here(job: Job, tasks: Sequence[Task], workers: tuple[int, int]) -> Iterator[Record]:
    """The records of the tasks as they are done, by `workers[1]` processes that share the threads that torch may use.

    This process is one of them, and at work while the others start. They take a GPU each where there are some, in turn.
    When one dies, what the others have in hand is begun again too.

    Raises:
        ProcessError: that happens over and over.
        QuasinatError: of a task.
    """
    device = device_named("auto")
    transform = job.load().to(device)
    if workers[1] == 1:
        return run_tasks(job, transform, tasks, at_once=1 if device == "cpu" else 2)
    return _shared(job, transform, tasks, workers[1])


def _shared(job: Job, transform: NamedTransform, tasks: Sequence[Task], count: int) -> Iterator[Record]:
    left, failures = deque(tasks), 0
    threads = max(1, torch.get_num_threads() // count)
    here = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(threads,))
    there = _processes(job, count - 1, threads)
    busy: dict[Future[Record], tuple[Task, Executor]] = {}
    try:
        while left or busy:
            while left and len(busy) < count:
                task = left.popleft()
                if any(pool is here for _, pool in busy.values()):
                    busy[_submitted(there, _do, task)] = task, there
                else:
                    busy[here.submit(run_task, job, transform, task)] = task, here
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                task, pool = busy.pop(future)
                try:
                    record = future.result()
                except BrokenProcessPool:
                    left.append(task)
                    if pool is there:  # and not one that has been replaced already
                        there, failures = _processes(job, count - 1, threads), failures + 1
                    if failures == PATIENCE:
                        problem = f"{PATIENCE} times in a row a process died over {task.name} or one beside it"
                        raise ProcessError(problem, "see if the memory is too small; try fewer --workers") from None
                else:
                    failures = 0 if pool is there else failures
                    yield record
    finally:
        here.shutdown(cancel_futures=True)
        there.shutdown(cancel_futures=True)


def _submitted(pool: Executor, function: Callable[[Task], Record], task: Task) -> Future[Record]:
    """The task's future; a failed one where a process of the pool died while it had nothing to do."""
    try:
        return pool.submit(function, task)
    except BrokenProcessPool as error:
        failed: Future[Record] = Future()
        failed.set_exception(error)
        return failed


def _processes(job: Job, count: int, threads: int) -> ProcessPoolExecutor:
    spawned = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, spawned, _begin, (job, threads, spawned.Value("i", 1)))


def _begin(job: Job, threads: int, started: "Synchronized[int]") -> None:
    """What a process that was started does first."""
    global _theirs
    torch.set_num_threads(threads)
    device = device_named("auto")
    if device == "cuda":
        with started.get_lock():
            torch.cuda.set_device(started.value % torch.cuda.device_count())
            started.value += 1
    _theirs = job, job.load().to(device)


def _do(task: Task) -> Record:
    return run_task(*_theirs, task)
