"""Progress on stderr: a bar for the task at hand, a line for each that is done; no bar where stderr is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from quasinat.experiments.progress import Report
from quasinat.parallel import leads


class Bars:
    """Shows the task at hand with the time left, and what the tasks before it took; use as a context manager.

    Of several processes of a job the one that leads shows its own.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, quiet=not leads())
        self.progress = Progress(
            TextColumn("{task.description:<42}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (self.console.is_terminal and leads()),
        )

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Report]:
        began = time.perf_counter()
        bar = self.progress.add_task(title, total=total)

        def report(done: int, note: str = "") -> None:
            self.progress.update(bar, completed=done)
            if note:
                self.progress.update(bar, description=f"{title}: {note}")
                if not self.console.is_terminal:
                    line = f"  {title}: {note}, {time.perf_counter() - began:.0f} s"
                    self.console.print(line, highlight=False, soft_wrap=True)

        yield report
        self.progress.remove_task(bar)
        self.console.print(f"{title:<50} {time.perf_counter() - began:6.1f} s", highlight=False)
