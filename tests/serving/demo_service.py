"""A small layer, two small networks and an app around the demo's router, for the tests of the demo page."""

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image as Pillow
from tests.layers import stratified
from torch import Tensor

from quasinat.batches import project
from quasinat.data import PHOTOGRAPHS, photographs
from quasinat.networks import vgg
from quasinat.serving.demo import demo_router
from quasinat.serving.demo_maths import Exhibit
from quasinat.training import train_classifier


@cache
def exhibit() -> Exhibit:
    """Three strata of random filters, and networks trained for seconds on patches of the photographs and T of them."""
    data = photographs(32, colour=True, train_per_class=20, test_per_class=2)
    layer = stratified().eval()
    networks = []
    for images in (project(layer, data.train_images), data.train_images):
        network = vgg("vgg-small", classes=10)
        train_classifier(network, images, data.train_labels, epochs=4, augment=False)
        networks.append(network.requires_grad_(False).eval())
    return Exhibit(layer, *networks, labels=PHOTOGRAPHS)


@cache
def patches() -> Tensor:
    """Test patches that the networks did not see, `20 3 32 32`, as exact as an 8-bit file keeps them."""
    images = photographs(32, colour=True, train_per_class=1, test_per_class=2).test_images
    return (images * 255).round() / 255


def png(image: Tensor) -> bytes:
    """The PNG file of `C H W` in [0, 1]."""
    file = io.BytesIO()
    Pillow.fromarray((image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()).save(file, "PNG")
    return file.getvalue()


def of_uri(uri: str) -> Tensor:
    """The pixels of a data URI, `C H W` in [0, 1]."""
    with Pillow.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))) as picture:
        channels = len(picture.getbands())
        flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        return flat.view(picture.height, picture.width, channels).permute(2, 0, 1).float() / 255


def app_of(parts: Exhibit, before: Callable[[], object] = lambda: None) -> FastAPI:
    """The router alone in an app with one worker thread, which calls `before` ahead of every piece of work."""
    worker = ThreadPoolExecutor(1)

    async def run(work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(worker, lambda: (before(), work())[1])

    app = FastAPI()
    app.include_router(demo_router(parts.layer, parts.model, parts.plain_model, run, labels=parts.labels))
    app.state.worker = worker
    return app


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app on a free port; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        app.state.worker.shutdown()
