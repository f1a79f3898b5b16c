"""A service on a free port, served by a thread of the tests, and what is sent to it."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from torch import Tensor

from layers import images_of, stratified
from quasinat.data.image_tree import png_bytes, to_8_bits
from quasinat.networks import vgg
from quasinat.serving.app import create_app
from quasinat.serving.coder import Coder
from quasinat.serving.demo import demo_router
from quasinat.serving.demo_maths import Exhibit
from quasinat.serving.limits import Limits
from quasinat.serving.server import Server, address, listen, own_hosts, server
from quasinat.serving.service import Service as Inside

CLASSES = 7
NAMES = [f"class {label}" for label in range(CLASSES)]
KEY = "correct horse battery staple".replace(" ", "-")


def coder(*, classify: bool = True, channels: int = 3) -> Coder:
    """A layer of three strata before one small network, and beside another."""
    networks = [vgg("vgg-small", classes=CLASSES, channels=channels, seed=seed) for seed in range(2 * classify)]
    return Coder(stratified(channels), *networks)


def page_of(made: Coder) -> Callable[[Inside], APIRouter]:
    """The demo page of a layer and its networks."""
    return partial(demo_router, Exhibit(made.layer, made.model, made.plain_model))


def eight_bits(count: int, height: int = 20, width: int = 20, channels: int = 3) -> Tensor:
    """Images as files hold them."""
    return to_8_bits(images_of(channels, count, height, width))


def png(image: Tensor) -> bytes:
    """The file of an 8-bit image."""
    return png_bytes(image)


def opened(content: bytes) -> Image.Image:
    """The picture in a file."""
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture


class Gate:
    """A route that keeps the models' thread busy until the gate opens."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()

    def router(self, service: Inside) -> APIRouter:
        """`GET /v1/hold`."""
        router = APIRouter()

        def hold() -> bool:
            self.entered.set()
            return self.open.wait(20)

        @router.get("/v1/hold")
        async def held() -> bool:
            return await service.worker.run(hold)

        return router


@dataclass
class Service:
    """One that runs."""

    url: str
    client: httpx.Client
    app: FastAPI
    server: Server

    def post(self, path: str, content: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, content=content, **options)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; zero where it is not there yet."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        found = [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
        return sum(found)

    def connect(self) -> socket.socket:
        """A bare connection."""
        host, port = self.url.removeprefix("http://").split(":")
        return socket.create_connection((host, int(port)), timeout=20)


@contextmanager
def serving(made: Coder | None = None, limits: Limits | None = None, **options: Any) -> Iterator[Service]:
    """A service as the command starts it, until the block ends."""
    limits = limits or Limits()
    options = {"hosts": own_hosts("127.0.0.1", options.get("key"), []), **options}
    app = create_app(made or coder(), limits=limits, **options)
    runs = server(app, limits)
    headers = {"Authorization": f"Bearer {options['key']}"} if options.get("key") else {}
    with listen("127.0.0.1", 0) as listening:
        url = address(listening)
        thread = threading.Thread(target=runs.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            pool = httpx.Limits(max_connections=100, max_keepalive_connections=0)
            with httpx.Client(base_url=url, headers=headers, timeout=30, limits=pool) as client:
                yield Service(url, client, app, runs)
        finally:
            runs.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


def refused(answer: httpx.Response, status: int, *parts: str) -> None:
    """Asserts that an answer is one clear line in two parts."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "remedy"}
    assert all(isinstance(text, str) and text and "\n" not in text for text in body.values())
    for part in parts:
        assert part in f"{body['error']}; {body['remedy']}", body


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    """What the service sends until it closes the connection."""
    parts = []
    while part := connection.recv(2**16):
        parts.append(part)
    return b"".join(parts)
