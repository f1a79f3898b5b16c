"""Progress on stderr: a bar for the task at hand, a line for each that is done; no bar where stderr is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """Shows the task at hand with the time left, and what the tasks before it took; use as a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description:<42}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        began = time.perf_counter()
        bar = self.progress.add_task(title, total=total)
        yield lambda done: self.progress.update(bar, completed=done)
        self.progress.remove_task(bar)
        self.console.print(f"{title:<50} {time.perf_counter() - began:6.1f} s", highlight=False)
