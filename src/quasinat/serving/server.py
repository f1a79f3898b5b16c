"""The application behind a socket: who may reach it, how patiently it listens, and how it stops."""

import asyncio
import copy
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.h11_impl import H11Protocol

from quasinat.errors import OutputError, UsageError
from quasinat.serving.limits import Limits
from quasinat.serving.origin import Hosts, host_name, loopback
from quasinat.serving.refusal import Refused, answer_of

KEEP_ALIVE = 5  # seconds that an idle connection is kept


def check_reach(host: str, key: str | None, no_key: bool) -> None:
    """Refuses to let other machines in without a key, unless told to.

    Raises:
        UsageError: they could reach it; or a key that is told not to be there.
    """
    if no_key and key is not None:
        raise UsageError("--no-key, and there is a key", "leave one of them out")
    if key is None and not no_key and not loopback(host):
        problem = f"--host {host} lets other machines in without a key"
        raise UsageError(problem, "pass --api-key-file FILE, or --no-key if a proxy checks who they are")


def own_hosts(host: str, key: str | None, named: Sequence[str]) -> Hosts:
    """What a service is called that listens there: it is strict where only its place protects it, see `origin`.

    Raises:
        UsageError: a name that no browser would send.
    """
    for name in named:
        if not name or host_name(name) != name.lower():
            raise UsageError(f"--allow-host {name!r} is no name of a host", "give one such as demo.example")
    return Hosts(frozenset(name.lower() for name in named), only=key is None and loopback(host))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        OutputError: the address is taken, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise OutputError(f"cannot listen on {host} port {port}: {error}", "name another --host or --port") from None


def address(listening: socket.socket) -> str:
    """The URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn, but a signal that it was asked to stop with is not raised again: a graceful stop is a success.

    On SIGTERM or SIGINT it takes no new connections, answers the requests that it has, and ends.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stops on a signal, and forgets it once stopped."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def server(app: Any, limits: Limits, *, access_log: bool = False) -> Server:
    """The server of an application; `server.run(sockets=[listen(...)])` serves until it is told to stop."""

    class Patient(H11Protocol):
        """Closes a connection whose next request's head is not whole within `body_timeout`, or is none."""

        due: float | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if made.should_exit:  # accepted just before the door was closed
                self.shutdown()
            else:
                self._arm()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self._arm()  # what came ends within a head, and does not buy more time
            else:
                self.due = None

        def send_400_response(self, msg: str) -> None:
            """In the form of all refusals."""
            answer = answer_of(Refused(400, "this is no request of HTTP/1.1", "see the reference at /docs"))
            headers = [*answer.raw_headers, (b"x-content-type-options", b"nosniff"), (b"connection", b"close")]
            head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _arm(self) -> None:
            now = self.loop.time()
            self.due = self.due or now + limits.body_timeout
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(self.due - now, self.timeout_keep_alive_handler)

    log = copy.deepcopy(LOGGING_CONFIG)
    log["handlers"]["access"]["stream"] = "ext://sys.stderr"  # stdout is for data
    made = Server(
        uvicorn.Config(
            app,
            http=Patient,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=log,
            log_level="info",
            access_log=access_log,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=int(limits.body_timeout + limits.timeout) + 1,
        )
    )
    return made
