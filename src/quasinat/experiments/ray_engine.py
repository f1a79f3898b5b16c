"""The tasks of a job on a Ray cluster: Ray Data's actors hold the transformation, and Ray repeats what fails."""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from quasinat.errors import QuasinatError, UsageError
from quasinat.experiments.devices import device_named
from quasinat.experiments.shard_tasks import Job, Record, Task, run_tasks

IN_A_ROW = 8  # tasks that an actor with a GPU is given at a time: it does two at once, and waits for files at the ends


class Worker:
    """An actor: makes the transformation once and does the tasks that it is given, as `run_tasks` does them."""

    def __init__(self, job: Job, at_once: int) -> None:
        self.job, self.at_once = job, at_once
        self.transform = job.load().to(device_named("auto"))

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        """The tasks' records as JSON; then what was wrong, if something was: with data, which would be wrong again."""
        named = zip(rows["name"], rows["files"], strict=True)
        tasks = [Task(str(name), tuple(json.loads(files))) for name, files in named]
        said: list[str] = []
        try:
            said.extend(map(json.dumps, run_tasks(self.job, self.transform, tasks, at_once=self.at_once)))
        except QuasinatError as error:
            problem = {"kind": type(error).__name__, "problem": error.problem, "remedy": error.remedy}
            said.append(json.dumps({"error": problem}))
        return {"record": said}


def run_on_ray(job: Job, tasks: Sequence[Task], workers: tuple[int, int]) -> Iterator[Record]:
    """The records of the tasks as they are done, by at least and at most so many actors.

    A cluster that is there already is used (`RAY_ADDRESS`, or the one that submitted the job); else Ray starts on this
    machine. An actor that dies is replaced, and its task is done again.

    Raises:
        UsageError: Ray is not installed.
        QuasinatError: of a task.
    """
    ray = started_ray()
    gpus = ray.cluster_resources().get("GPU", 0) >= 1
    in_a_row = max(1, min(IN_A_ROW, len(tasks) // workers[1])) if gpus else 1
    rows = [{"name": task.name, "files": json.dumps(task.files)} for task in tasks]
    made = ray.data.from_items(rows, override_num_blocks=len(rows) // in_a_row).map_batches(
        Worker,
        batch_size=in_a_row,
        fn_constructor_args=(job, 2 if gpus else 1),
        compute=ray.data.ActorPoolStrategy(min_size=workers[0], max_size=workers[1]),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    for row in made.iter_rows():
        record: Record = json.loads(row["record"])
        if "error" in record:
            raise _error(**record["error"])
        yield record


def started_ray() -> Any:
    """Ray with its Data, started on this machine unless there is a cluster already; it says nothing unless it fails.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError("the engine ray needs Ray", "pip install 'quasinat[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False  # the job has its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _error(kind: str, problem: str, remedy: str) -> QuasinatError:
    import quasinat.errors

    made: QuasinatError = getattr(quasinat.errors, kind)(problem, remedy)
    return made
