"""The demo page as a router: the page's files, the built-in photographs, and `POST /v1/demo`, which does the work."""

from functools import cache, partial
from importlib.resources import files
from threading import Event
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from quasinat.arrays import Image
from quasinat.attacks import budget_text
from quasinat.data import PHOTOGRAPHS, photograph
from quasinat.data.image_tree import png_bytes, to_8_bits
from quasinat.errors import QuasinatError
from quasinat.serving.answers import IMAGE_BODY, OF_A_BODY, problems
from quasinat.serving.demo_answer import answer_json, settings_json
from quasinat.serving.demo_maths import Attacked, Exhibit, show
from quasinat.serving.demo_options import ATTACKS_SHOWN, LARGEST, REACH, SIDES, THREATS, DemoOptions, parse_options
from quasinat.serving.demo_picture import read_image
from quasinat.serving.refusal import Refused
from quasinat.serving.service import Service

SAMPLE_SIDE = 96  # pixels of a built-in photograph's middle square
EASIER = "choose fewer pixels, another attack or a larger lambda, or send it when the service is less busy"
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_FILES = {
    "style.css": "text/css",
    "script.js": "text/javascript",
    "show.js": "text/javascript",
    "words.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def demo_router(exhibit: Exhibit, service: Service) -> APIRouter:
    """`GET /`, the files beside it, and the endpoint that the page asks.

    Args:
        exhibit: the layer and the classifiers of the page; touched on the service's worker alone.
        service: reads the files, and runs the work.
    """
    attacked = Attacked()  # touched on the models' thread alone
    usual = parse_options({}, learned=exhibit.layer.sparsity, threats=exhibit.threats)
    router = APIRouter(tags=["demo"])

    @router.get("/", include_in_schema=False)
    def page() -> Response:
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return _file("index.html", "text/html", headers)

    @router.get("/page/{name}", include_in_schema=False)
    def page_file(name: str) -> Response:
        if name not in PAGE_FILES:
            raise Refused(404, f"there is no page/{name}", "see /docs")
        return _file(name, PAGE_FILES[name])

    @router.get("/v1/demo", response_description="All of it.", responses=problems(401, 403))
    def settings() -> dict[str, Any]:
        """What the demo page can show here: layer, classifiers, attacks, sizes, photographs."""
        return settings_json(exhibit, PHOTOGRAPHS)

    @router.get("/page/photographs/{name}", include_in_schema=False)
    def sample(name: str) -> Response:
        """The middle of a built-in photograph, as PNG."""
        try:
            return Response(_sample(name), media_type="image/png", headers={"Cache-Control": "max-age=86400"})
        except QuasinatError as error:
            raise Refused(404, error.problem, error.remedy) from None

    def made(image: Image, given: tuple[int, int], options: DemoOptions, over: Event) -> dict[str, Any]:
        image = image.to(exhibit.layer.filters)
        exhibit.layer.check(image[None])
        shown = show(exhibit, image, options, attacked.image(exhibit, image, options, over))
        return answer_json(exhibit, shown, options, given)

    async def answer(content: bytes, options: DemoOptions, over: Event) -> dict[str, Any]:
        of_file = service.coder.channels, options.side, service.limits.page_pixels
        image, given = await service.read(read_image, content, *of_file, slow=True)
        return await service.worker.alone(partial(made, image, given, options, over))

    @router.post(
        "/v1/demo",
        openapi_extra=IMAGE_BODY,
        response_description="Pictures, what the classifiers say of them, and the codes.",
        responses=problems(400, *OF_A_BODY),
    )
    async def demo(
        request: Request,
        attack: Annotated[str, Query(description=f"one of {', '.join(ATTACKS_SHOWN)}")] = usual.attack,
        threat: Annotated[str | None, Query(description=f"one of {', '.join(THREATS)}")] = usual.threat,
        budget: Annotated[
            str, Query(description=f"at most {' or '.join(text for text, _ in LARGEST.values())}")
        ] = budget_text(usual.budget),
        sparsity: Annotated[
            str, Query(alias="lambda", description=f"at most {REACH} times the usual one, at least that over {REACH}")
        ] = f"{usual.sparsity:g}",
        side: Annotated[
            str, Query(description=f"pixels of the longer side, at most: {', '.join(map(str, SIDES))}")
        ] = str(usual.side),
    ) -> dict[str, Any]:
        """Attacks an image, projects it, and asks the classifiers; pictures are PNG data URIs."""
        options = parse_options(request.query_params, learned=exhibit.layer.sparsity, threats=exhibit.threats)
        content, over = await request.body(), Event()
        try:
            return await service.answered(request, answer(content, options, over), EASIER)
        finally:
            over.set()

    return router


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
