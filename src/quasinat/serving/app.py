"""The application: its routes, and how they come to an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from quasinat.artefact import versions
from quasinat.errors import InputError
from quasinat.serving.answers import IMAGE_BODY, PNG_ANSWER, Alive, Classified, Likely, Opinion, problems
from quasinat.serving.coder import Asked, Coder, Outcome, Probabilities
from quasinat.serving.edge import Edge
from quasinat.serving.limits import Limits
from quasinat.serving.metrics import KIND, Metrics
from quasinat.serving.pictures import decode, encode
from quasinat.serving.reference import reference
from quasinat.serving.refusal import Refused, answer_of, full, patience
from quasinat.serving.worker import Worker

DECODERS = 2  # threads for image files
T = TypeVar("T")
Run = Callable[[Callable[[], Any]], Awaitable[Any]]  # of the worker, see `Worker.run`


def create_app(
    coder: Coder,
    *,
    limits: Limits | None = None,
    key: str | None = None,
    names: Sequence[str] | None = None,
    page: Callable[[Run], APIRouter] | None = None,
) -> FastAPI:
    """The service as an ASGI application; its worker starts and ends with the application's lifespan.

    Args:
        coder: the layer and its classifiers; nobody else may use them while the application runs.
        limits: what a request may cost.
        key: what `Authorization: Bearer` has to say, but for the health checks, the reference and a page's files.
        names: of the classes.
        page: makes the router of a page of the service (with `GET /`) from the worker's `run`, which awaits a function
            on the thread that owns the models, within the bounds of the queue and the timeout.
    """
    limits = limits or Limits()
    metrics = Metrics()
    worker = Worker(coder.code, coder.most, limits, metrics.batch)
    metrics.watch(worker)
    service = _Service(coder, worker, limits, names)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            await worker.alone(coder.warm_up)
            yield
        finally:
            await asyncio.to_thread(worker.close, limits.timeout)
            service.decoders.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="quasinat",
        version=versions()["quasinat"],
        description="Images through a Sparse Transformation Layer, and a classifier behind it.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.worker = worker
    app.include_router(_images(service, [] if key is None else [Depends(HTTPBearer(auto_error=False))]))
    app.include_router(_operations(worker, metrics))
    app.include_router(_front() if page is None else page(worker.run))

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return Response(reference(app.openapi()), media_type="text/html")

    app.add_exception_handler(StarletteHTTPException, _explained)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _unusable)
    paths = frozenset(str(path) for path in ("/docs", "/openapi.json", "/", *app.openapi()["paths"]))
    app.add_middleware(Edge, limits=limits, key=key, metrics=metrics, paths=paths)
    return app


class _Service:
    """How an image gets through: decoded beside the event loop, coded by the worker."""

    def __init__(self, coder: Coder, worker: Worker, limits: Limits, names: Sequence[str] | None) -> None:
        self.coder, self.worker, self.limits, self.names = coder, worker, limits, names
        self.decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="quasinat-decoder")

    async def aside(self, function: Callable[..., T], *arguments: Any) -> T:
        """A function of the image files on one of their threads."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, function, *arguments)

    async def outcome(self, content: bytes, classify: bool) -> Outcome:
        """What becomes of the bytes of an image."""
        if self.worker.full:  # before any work is put into it
            raise full(f"{len(self.worker)} requests are waiting already")
        least = self.coder.least_side(classify)
        image = await self.aside(self._decoded, content, least)
        made: Outcome = await self.worker.image(Asked(image, classify), image.shape[1], image.shape[2])
        return made

    def _decoded(self, content: bytes, least_side: int) -> Any:
        return decode(content, self.coder.channels, max_pixels=self.limits.max_pixels, least_side=least_side)

    async def projected(self, content: bytes) -> tuple[bytes, int]:
        """The PNG file of T(x), and the stratum."""
        made = await self.outcome(content, classify=False)
        return await self.aside(encode, made.projected), made.stratum

    def opinion(self, probabilities: Probabilities, top: int) -> Opinion:
        """A classifier's most probable classes."""
        values, labels = probabilities.sort(descending=True, stable=True)
        likely = [
            Likely(label=label, name=self.names[label] if self.names else None, probability=value)
            for value, label in zip(values[:top].tolist(), labels[:top].tolist(), strict=True)
        ]
        return Opinion(label=likely[0].label, name=likely[0].name, top=likely)


def _images(service: _Service, guards: list[Any]) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["images"], dependencies=guards)
    seconds = service.limits.timeout
    refusals = (401, 408, 413, 422, 429, 500, 503, 504)

    @router.post(
        "/project",
        openapi_extra=IMAGE_BODY,
        response_class=Response,
        responses={200: PNG_ANSWER, **problems(*refusals)},
    )
    async def project(request: Request) -> Response:
        """The projection T(x) of an image, as PNG."""
        content = await request.body()
        async with patience(seconds):
            png, stratum = await unless_gone(request, service.projected(content))
        return Response(png, media_type="image/png", headers={"X-Stratum": str(stratum)})

    @router.post(
        "/classify",
        openapi_extra=IMAGE_BODY,
        response_description="The most probable classes before and after the projection.",
        responses=problems(404, *refusals),
    )
    async def classify(
        request: Request,
        top: Annotated[int, Query(ge=1, le=1000, description="how many of the most probable classes to name")] = 5,
    ) -> Classified:
        """What the classifiers say of an image and of its projection, and how much they differ."""
        if service.coder.model is None:
            raise Refused(404, "the service has no classifier", "start it with --model CLASSIFIER.safetensors")
        content = await request.body()
        async with patience(seconds):
            made = await unless_gone(request, service.outcome(content, classify=True))
        assert made.before is not None
        assert made.after is not None
        before, after = service.opinion(made.before, top), service.opinion(made.after, top)
        return Classified(before=before, after=after, disagreement=made.disagreement, stratum=made.stratum)

    return router


def _operations(worker: Worker, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", response_description="It lives.", responses=problems(503))
    async def alive() -> Alive:
        """Whether the service lives; where it does not, start it again."""
        if not worker.alive:
            raise Refused(503, "the worker has ended or hangs", "start the service again")
        return Alive(status="ok")

    @router.get("/readyz", response_description="It does.", responses=problems(503))
    async def ready() -> Alive:
        """Whether it takes requests."""
        if not worker.accepts:
            raise Refused(503, "the service takes no requests", "send them to another one")
        return Alive(status="ok")

    text = {"content": {"text/plain": {"example": "quasinat_images_total 42.0\n"}}, "description": "Its text format."}
    guarded = {200: text, **problems(401)}

    @router.get("/metrics", response_class=Response, responses=guarded)
    async def numbers() -> Response:
        """What Prometheus scrapes."""
        return Response(metrics.text(), headers={"Content-Type": KIND})

    return router


def _front() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router


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


async def _explained(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return answer_of(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return answer_of(Refused(422, f"{first['loc'][-1]}: {first['msg']}", "see /docs"))


async def _unusable(request: Request, error: Exception) -> Response:
    assert isinstance(error, InputError)
    return answer_of(Refused(422, error.problem, error.remedy))
