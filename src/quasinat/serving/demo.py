"""The demo page as a router: the page's files, the built-in photographs, and `POST /v1/demo`, which does the work."""

import io
import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from torch import nn

from quasinat.arrays import Image
from quasinat.data import PHOTOGRAPHS, photograph
from quasinat.data.image_files import CONVERSIONS, in_mode, pixels
from quasinat.data.image_tree import png_bytes, to_8_bits
from quasinat.errors import InputError, QuasinatError, UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.serving.demo_answer import answer_json, settings_json
from quasinat.serving.demo_maths import Attacked, Exhibit, show
from quasinat.serving.demo_options import parse_options

MOST_BYTES, MOST_PIXELS = 8 * 2**20, 24_000_000  # of a file
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # Pillow's names of those that it decodes itself
SAMPLE_SIDE = 96  # pixels of a built-in photograph's middle square
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_FILES = {
    "style.css": "text/css",
    "script.js": "text/javascript",
    "show.js": "text/javascript",
    "words.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an image file, PNG or JPEG for example.",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}
Run = Callable[[Callable[[], Any]], Awaitable[Any]]


class TooLargeError(InputError):
    """A file of more bytes or pixels than are read."""


def demo_router(
    layer: SparseTransformationLayer,
    model: nn.Module | None,
    plain_model: nn.Module | None,
    run: Run,
    *,
    labels: Sequence[str] | None = None,
) -> APIRouter:
    """`GET /`, the files beside it, and the endpoint that the page asks.

    Args:
        layer: of grey or RGB images; its gradient need not be named.
        model: a classifier trained on T of images; with the layer before it, it is the defended one.
        plain_model: a classifier trained on images as they are.
        run: awaits a blocking function on the thread that owns the models.
        labels: the names of the classes.

    Raises:
        UsageError: a layer that is neither grey nor RGB.
    """
    exhibit = Exhibit(layer, model, plain_model, labels)
    channels = layer.filters.shape[2]
    if channels not in CONVERSIONS:
        raise UsageError(f"the layer codes images of {channels} channels", "show a layer of grey or RGB images")
    attacked = Attacked()  # touched on the models' thread alone
    router = APIRouter(tags=["demo"])

    @router.get("/", include_in_schema=False)
    def page() -> Response:
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return _file("index.html", "text/html", headers)

    @router.get("/page/{name}", include_in_schema=False)
    def page_file(name: str) -> Response:
        if name not in PAGE_FILES:
            raise HTTPException(404, f"there is no page/{name}")
        return _file(name, PAGE_FILES[name])

    @router.get("/v1/demo")
    def settings() -> dict[str, Any]:
        """What the demo page can show here: layer, classifiers, attacks, sizes, photographs."""
        return settings_json(exhibit, PHOTOGRAPHS)

    @router.get("/page/photographs/{name}", include_in_schema=False)
    def sample(name: str) -> Response:
        """The middle of a built-in photograph, as PNG."""
        try:
            return Response(_sample(name), media_type="image/png", headers={"Cache-Control": "max-age=86400"})
        except QuasinatError as error:
            raise HTTPException(404, str(error)) from None

    @router.post("/v1/demo", openapi_extra=BODY)
    async def demo(
        request: Request,
        attack: Annotated[str | None, Query(description="none, fgsm, bim, pgd, deepfool, carlini-wagner ...")] = None,
        threat: Annotated[str | None, Query(description="gray-box, white-box or white-box-identity")] = None,
        budget: Annotated[str | None, Query(description="linf:8/255 or dissimilarity:0.03")] = None,
        sparsity: Annotated[str | None, Query(alias="lambda", description="of the projection")] = None,
        side: Annotated[str | None, Query(description="32, 48, 64 or 96: pixels of the longer side, at most")] = None,
    ) -> dict[str, Any]:
        """Attacks an image, projects it, and asks the classifiers; pictures are PNG data URIs."""
        try:
            options = parse_options(request.query_params, learned=layer.sparsity, threats=exhibit.threats)
            content = await read_body(request)

            def work() -> dict[str, Any]:
                image, given = read_image(content, CONVERSIONS[channels], options.side)
                image = image.to(layer.filters)
                layer.check(image[None])
                shown = show(exhibit, image, options, attacked.image(exhibit, image, options))
                return answer_json(exhibit, shown, options, given)

            answer: dict[str, Any] = await run(work)
            return answer
        except QuasinatError as error:
            raise HTTPException(_status(error), str(error)) from None

    return router


async def read_body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        TooLargeError: it has more than `MOST_BYTES`; no more than that is read.
        InputError: it is empty.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise TooLargeError(f"the file has more than {MOST_BYTES // 2**20} MiB", "send a smaller one")
    if not content:
        raise InputError("no image was sent", "send the bytes of an image file as the request's body")
    return bytes(content)


def read_image(content: bytes, mode: str, side: int) -> tuple[Image, tuple[int, int]]:
    """An image file as `C H W` in [0, 1], turned as its EXIF says, and the file's width and height.

    Args:
        content: of the file.
        mode: "grey" or "rgb"; transparent parts lie over white.
        side: the longer side is scaled down to so many pixels, if it has more.

    Raises:
        TooLargeError: its header says more than `MOST_PIXELS`; nothing was decoded then.
        InputError: no image, or a damaged one.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our limit of pixels is lower, and what Pillow makes do with, it decodes
            with Pillow.open(io.BytesIO(content), formats=FORMATS) as file:
                width, height = file.size
                if width * height > MOST_PIXELS:
                    problem = f"the image has {width} x {height} pixels, more than {MOST_PIXELS // 10**6} million"
                    raise TooLargeError(problem, "send a smaller one")
                picture = in_mode(ImageOps.exif_transpose(file), Path("the file"), mode)
    except QuasinatError:
        raise
    except Exception:  # whatever a decoder trips over, the file is at fault
        raise InputError("the file cannot be read as an image", "send a PNG or a JPEG, for example") from None
    given = picture.size
    scale = side / max(given)
    if scale < 1:
        smaller = (max(1, round(given[0] * scale)), max(1, round(given[1] * scale)))
        picture = picture.resize(smaller, Pillow.Resampling.LANCZOS)
    return pixels(picture).float() / 255, given


@cache
def _sample(name: str) -> bytes:
    """The PNG file of the middle square of a photograph, `SAMPLE_SIDE` pixels wide."""
    image = photograph(name, colour=True, size=SAMPLE_SIDE)
    left, top = (image.shape[2] - SAMPLE_SIDE) // 2, (image.shape[1] - SAMPLE_SIDE) // 2
    square = image[None, :, top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE]
    return png_bytes(to_8_bits(square)[0])


def _file(name: str, kind: str, headers: dict[str, str] | None = None) -> Response:
    content = files("quasinat.serving").joinpath("page", name).read_bytes()
    kept = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(content, media_type=kind, headers=kept)


def _status(error: QuasinatError) -> int:
    """400 for a request that makes no sense, 413 for a file too large, 422 for one that cannot be used."""
    if isinstance(error, UsageError):
        return 400
    return 413 if isinstance(error, TooLargeError) else 422
