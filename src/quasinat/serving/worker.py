"""One thread that owns the models: waiting images of one size go together, functions alone, in the order they came."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quasinat.serving.limits import Limits
from quasinat.serving.patience import patience
from quasinat.serving.refusal import Refused, full

Size = tuple[int, int]  # height, width
T = TypeVar("T")
STUCK = 300.0  # seconds after which one batch is taken for hung


@dataclass(eq=False)
class _Job:
    """Work that waits: an image with its size, or a function, which has none."""

    work: Any
    size: Size | None
    future: asyncio.Future[Any]
    arrived: float = field(default_factory=time.monotonic)

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1] if self.size else 0


class Worker:
    """A bounded queue and the thread that serves it.

    Args:
        code: what is made of some images of one size, in their order; it may raise.
        most: how many images of a height and width may go together.
        limits: of batch, wait and queue; `timeout` is that of `run`.
        on_batch: called on the thread with the size of each batch of images that was coded.
    """

    def __init__(
        self,
        code: Callable[[list[Any]], Sequence[Any]],
        most: Callable[[int, int], int],
        limits: Limits,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._code, self._most, self._limits, self._on_batch = code, most, limits, on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._began: float | None = None
        self._thread = threading.Thread(target=self._work, name="quasinat-worker", daemon=True)

    def __len__(self) -> int:
        """Of the queue: what waits, without what is being done."""
        return len(self._jobs)

    @property
    def full(self) -> bool:
        """Whether the next one would be refused."""
        return len(self._jobs) >= self._limits.queue

    @property
    def alive(self) -> bool:
        """Whether the thread runs and is not hung."""
        began = self._began
        return self._thread.is_alive() and (began is None or time.monotonic() - began < STUCK)

    @property
    def accepts(self) -> bool:
        """Whether it takes new work."""
        return self.alive and not self._stopping

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self, seconds: float | None = None) -> None:
        """Takes no new work, does what waits, and ends the thread; waits for that, or for so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    async def image(self, work: Any, height: int, width: int) -> Any:
        """What `code` makes of an image. Cancelled, it leaves the queue unless it has begun.

        Raises:
            Refused: 429 where the queue is full, 503 where it is closed.
        """
        return await self._answer(work, (height, width))

    async def alone(self, function: Callable[[], T]) -> T:
        """What a function returns on the thread, or raises there; however long it takes. Refused as an image is."""
        made: T = await self._answer(function, None)
        return made

    async def run(self, function: Callable[[], T]) -> T:
        """The same within the `timeout`.

        Raises:
            Refused: as of `image`; 504 after the `timeout`: then it does not begin, or nobody waits for its end.
        """
        async with patience(self._limits.timeout):
            return await self.alone(function)

    async def _answer(self, work: Any, size: Size | None) -> Any:
        job = _Job(work, size, asyncio.get_running_loop().create_future())
        with self._changed:
            if not self.accepts:
                raise Refused(503, "the service is stopping", "send it to another one", {"Retry-After": "5"})
            if self.full or (self._jobs and self._pixels() + job.pixels > self._limits.queue_pixels):
                raise full(f"{len(self._jobs)} requests are waiting already")
            self._jobs.append(job)
            self._changed.notify()
        try:
            return await job.future
        finally:
            if job.future.cancelled():
                with self._changed, contextlib.suppress(ValueError):
                    self._jobs.remove(job)

    def _pixels(self) -> int:
        return sum(job.pixels for job in self._jobs)

    def _work(self) -> None:
        """The thread: a batch after the other, until it is closed and nothing waits."""
        while batch := self._gather():
            self._began = time.monotonic()
            self._do([job for job in batch if not job.future.cancelled()])
            self._began = None

    def _gather(self) -> list[_Job]:
        """The next function; or the next image with those of its size that are there or come within the wait.

        Empty once it is closed and nothing waits.
        """
        with self._changed:
            while not self._jobs:
                if self._stopping:
                    return []
                self._changed.wait()
            batch = [self._jobs.popleft()]
            size = batch[0].size
            if size is None:
                return batch
            most = min(self._limits.batch, self._most(*size))
            until = batch[0].arrived + self._limits.wait_ms / 1000
            while True:
                more = [job for job in self._jobs if job.size == size][: most - len(batch)]
                for job in more:
                    self._jobs.remove(job)
                batch += more
                left = until - time.monotonic()
                if len(batch) >= most or left <= 0 or self._stopping:
                    return batch
                self._changed.wait(left)

    def _do(self, batch: list[_Job]) -> None:
        """Does a batch; where it fails, one by one, so that an image fails alone."""
        if not batch:
            return
        try:
            if batch[0].size is None:
                made: Sequence[Any] = [batch[0].work()]
            else:
                made = self._code([job.work for job in batch])
                self._on_batch(len(batch))
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0].future, None, error)
            else:
                for job in batch:
                    self._do([job])
            return
        for job, answer in zip(batch, made, strict=True):
            _settle(job.future, answer, None)


def _settle(future: asyncio.Future[Any], answer: Any, error: Exception | None) -> None:
    """Hands an answer to the loop that waits for it, if it still does."""

    def settle() -> None:
        if not future.done():
            future.set_result(answer) if error is None else future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(settle)
