"""How long an answer is waited for: by the service, and by the client."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from quasinat.serving.refusal import Refused

LATER = "send it again when the service is less busy"
T = TypeVar("T")


@asynccontextmanager
async def patience(seconds: float, remedy: str = LATER) -> AsyncIterator[None]:
    """Gives up on what is inside after so many seconds.

    Raises:
        Refused: 504, with the remedy.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Refused(504, f"no answer within {seconds:g} seconds", remedy) from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns; it is cancelled when the client goes away before.

    Raises:
        ClientDisconnect: it did.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})  # so that what was given up has left the queue before anybody is told
