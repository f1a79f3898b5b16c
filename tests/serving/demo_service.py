"""A small layer, two small networks and the service with its page, for the tests of the demo page."""

import base64
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from fastapi import APIRouter, FastAPI
from PIL import Image as Pillow
from torch import Tensor

from layers import stratified
from quasinat.batches import project
from quasinat.data import PHOTOGRAPHS, photographs
from quasinat.networks import vgg
from quasinat.serving.app import create_app
from quasinat.serving.coder import Coder
from quasinat.serving.demo import demo_router
from quasinat.serving.demo_maths import Exhibit
from quasinat.serving.limits import Limits
from quasinat.serving.service import Service
from quasinat.training import train_classifier
from serving.service import serving


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


def coder_of(parts: Exhibit) -> Coder:
    """What the command makes of the page's parts; a plain classifier alone is the page's own."""
    return Coder(parts.layer, parts.model, parts.plain_model if parts.model else None)


def page_of(parts: Exhibit, before: Callable[[], object] = lambda: None) -> Callable[[Service], APIRouter]:
    """The page of a service whose worker calls `before` ahead of every piece of the page's work."""

    def page(service: Service) -> APIRouter:
        alone = service.worker.alone

        async def after(work: Callable[[], Any]) -> Any:
            if work == service.coder.warm_up:
                return await alone(work)
            return await alone(lambda: (before(), work())[1])

        service.worker.alone = after
        return demo_router(parts, service)

    return page


def app_of(parts: Exhibit, limits: Limits | None = None) -> FastAPI:
    """The whole service with its page."""
    return create_app(coder_of(parts), limits=limits, page=page_of(parts))


def shown(parts: Exhibit, before: Callable[[], object] = lambda: None, **options: Any) -> Any:
    """The service with its page on a free port; see `serving`."""
    return serving(coder_of(parts), page=page_of(parts, before), **options)
