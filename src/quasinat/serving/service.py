"""The service without its paths: who has the models, who reads image files, and how a request gets through."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from quasinat.serving.answers import Likely, Opinion
from quasinat.serving.coder import Asked, Coder, Outcome, Probabilities
from quasinat.serving.limits import Limits
from quasinat.serving.patience import LATER, patience, unless_gone
from quasinat.serving.pictures import decode, encode
from quasinat.serving.refusal import full
from quasinat.serving.worker import Worker

DECODERS = 2  # threads for image files
T = TypeVar("T")


class Service:
    """How an image gets through: decoded beside the event loop, coded by the worker.

    Args:
        coder: the layer and its classifiers.
        worker: the thread that owns them.
        limits: what a request may cost.
        names: of the classes.
    """

    def __init__(self, coder: Coder, worker: Worker, limits: Limits, names: Sequence[str] | None) -> None:
        self.coder, self.worker, self.limits, self.names = coder, worker, limits, names
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="quasinat-decoder")
        # A thread cannot be interrupted: what may take seconds has its own, and takes none from the small images.
        self._slow_decoder = ThreadPoolExecutor(1, thread_name_prefix="quasinat-slow-decoder")

    def close(self) -> None:
        """Ends the threads for image files; what waits for one is dropped."""
        for threads in (self._decoders, self._slow_decoder):
            threads.shutdown(wait=False, cancel_futures=True)

    async def answered(self, request: Request, work: Coroutine[Any, Any, T], remedy: str = LATER) -> T:
        """What a coroutine returns within the `timeout`; it is cancelled where the client does not wait for it.

        Raises:
            Refused: 504, with the remedy.
            ClientDisconnect: the client is gone.
        """
        async with patience(self.limits.timeout, remedy):
            return await unless_gone(request, work)

    async def read(self, reader: Callable[..., T], *arguments: Any, slow: bool = False) -> T:
        """What a reader of image files makes of one, on a thread of theirs; of the `slow` ones, one at a time.

        Raises:
            Refused: 429 where the queue for the models is full, before any work is put into it.
        """
        if self.worker.full:
            raise full(f"{len(self.worker)} requests are waiting already")
        threads = self._slow_decoder if slow else self._decoders
        return await asyncio.get_running_loop().run_in_executor(threads, reader, *arguments)

    async def outcome(self, content: bytes, classify: bool) -> Outcome:
        """What becomes of the bytes of an image."""
        image = await self.read(self._decoded, content, self.coder.least_side(classify))
        made: Outcome = await self.worker.image(Asked(image, classify), image.shape[1], image.shape[2])
        return made

    def _decoded(self, content: bytes, least_side: int) -> Any:
        return decode(content, self.coder.channels, max_pixels=self.limits.max_pixels, least_side=least_side)

    async def projected(self, content: bytes) -> tuple[bytes, int]:
        """The PNG file of T(x), and the stratum."""
        made = await self.outcome(content, classify=False)
        png = await asyncio.get_running_loop().run_in_executor(self._decoders, encode, made.projected)
        return png, made.stratum

    def opinion(self, probabilities: Probabilities, top: int) -> Opinion:
        """A classifier's most probable classes."""
        values, labels = probabilities.sort(descending=True, stable=True)
        likely = [
            Likely(label=label, name=self.names[label] if self.names else None, probability=value)
            for value, label in zip(values[:top].tolist(), labels[:top].tolist(), strict=True)
        ]
        return Opinion(label=likely[0].label, name=likely[0].name, top=likely)
