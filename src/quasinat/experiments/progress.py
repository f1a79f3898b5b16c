"""What a long run tells its caller; the caller decides how to show it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Shows one task at a time."""

    def task(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A task of `total` units; what it yields is called with the number of units done."""


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: None
