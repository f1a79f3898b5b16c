"""What a long run tells its caller; the caller decides how to show it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


class Report(Protocol):
    """Called with the number of units done, and perhaps a note on how it goes."""

    def __call__(self, done: int, note: str = "") -> None: ...


@runtime_checkable
class Progress(Protocol):
    """Shows one task at a time."""

    def task(self, title: str, total: int) -> AbstractContextManager[Report]:
        """A task of `total` units; what it yields is called with the number of units done."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Report]:
        def silent(done: int, note: str = "") -> None:
            return None

        yield silent
