"""What every request meets first: whose page asks, the key, the bounds of its body, its answer's headers, its count."""

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from quasinat.serving.limits import Limits
from quasinat.serving.metrics import Metrics
from quasinat.serving.origin import Hosts, check_origin
from quasinat.serving.refusal import Refused, answer_of, full

OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")  # without a key, as are the files of a page
OPEN_FOLDER = "/page/"
LINGER = 1.0  # seconds for the rest of a refused body: a connection closed on it could lose the answer
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}  # where a route does not say otherwise
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Body:
    """The body of a request as it arrives: its bytes counted, its time bounded."""

    def __init__(self, receive: Receive, headers: Headers, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._until = time.monotonic() + limits.body_timeout
        self._count = 0
        self._invited = headers.get("expect", "").lower() != "100-continue"  # whether the client sends unasked
        self.whole = "content-length" not in headers and "transfer-encoding" not in headers
        self.hopeless = False

    async def receive(self) -> Message:
        """The next part.

        Raises:
            Refused: 413 where it has too many bytes, 408 where it takes too long.
        """
        if self.whole:
            return await self._receive()  # what comes next is that the client goes
        self._invited = True
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            self.hopeless = True
            problem = f"the body did not arrive within {self._limits.body_timeout:g} seconds"
            raise Refused(408, problem, "send it faster, or a smaller image") from None
        self._seen(message)
        if self._count > self._limits.max_bytes:
            raise too_large(self._limits)
        return message

    def _seen(self, message: Message) -> None:
        self._count += len(message.get("body", b""))
        self.hopeless = self.hopeless or message["type"] == "http.disconnect"
        self.whole = not message.get("more_body", False)

    async def discard(self) -> None:
        """Reads on for a while if the client is still sending, and forgets what it reads."""
        try:
            async with asyncio.timeout(LINGER):
                while self._invited and not self.whole and not self.hopeless:
                    self._seen(await self._receive())
        except TimeoutError:
            pass


def too_large(limits: Limits) -> Refused:
    """The refusal of a body of too many bytes."""
    return Refused(413, f"the body has more than {limits.max_bytes} bytes", "send a smaller file")


class Edge:
    """The outermost layer of the application.

    Args:
        app: what is inside.
        limits: of bodies, and of how many requests with one are in flight.
        key: what `Authorization: Bearer` has to say; everybody is let in where it is None.
        metrics: where requests are counted.
        paths: those that are counted under their names; the others are "other".
        hosts: what the service is called.
    """

    def __init__(
        self,
        app: Application,
        *,
        limits: Limits,
        key: str | None,
        metrics: Metrics,
        paths: frozenset[str],
        hosts: Hosts,
    ) -> None:
        self._app, self._limits, self._metrics, self._paths, self._hosts = app, limits, metrics, paths, hosts
        self._key = None if key is None else _digest(key)
        self._in_flight = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serves one request; nothing that it raises goes further."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499
        headers = Headers(scope=scope)
        body = Body(receive, headers, self._limits)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                await body.discard()
                answer = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    answer.setdefault(name, value)
                if not body.whole:
                    answer["Connection"] = "close"
                status = message["status"]
            await send(message)

        counted = not body.whole
        self._count(counted)
        try:
            check_origin(scope["method"], headers, self._hosts)
            self._admit(scope["path"], headers)
            await self._app(scope, body.receive, sending)
        except Refused as refused:
            await answer_of(refused)(scope, body.receive, sending)
        except ClientDisconnect:
            status = 499
        except Exception:
            logging.getLogger("uvicorn.error").exception("a request failed")
            status, begun = 500, status != 499
            if not begun:
                answer = {"error": "the service failed at this request", "remedy": "its log says why"}
                await JSONResponse(answer, 500)(scope, body.receive, sending)
        finally:
            self._count(counted, -1)
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.answered(path, status, time.perf_counter() - began)

    def _count(self, counted: bool, change: int = 1) -> None:
        if counted:
            self._in_flight += change
            self._metrics.in_flight.set(self._in_flight)

    def _admit(self, path: str, headers: Headers) -> None:
        """Raises the refusal of a request that is not even read."""
        if self._key is not None and path not in OPEN and not path.startswith(OPEN_FOLDER):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # Digests are of one length, and the comparison takes as long whatever differs.
            if not (hmac.compare_digest(_digest(given.strip()), self._key) and scheme.lower() == "bearer"):
                challenge = {"WWW-Authenticate": "Bearer"}
                raise Refused(401, "the key is missing or wrong", "send Authorization: Bearer KEY", challenge)
        if self._in_flight > self._limits.in_flight:
            raise full(f"{self._limits.in_flight} requests are in flight already")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.max_bytes:
            raise too_large(self._limits)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
