"""The application: its routes, and how they come to an answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException

from quasinat.artefact import versions
from quasinat.errors import InputError, UsageError
from quasinat.serving.answers import IMAGE_BODY, OF_A_BODY, PNG_ANSWER, Alive, Classified, problems
from quasinat.serving.coder import Coder
from quasinat.serving.edge import Edge
from quasinat.serving.limits import Limits
from quasinat.serving.metrics import KIND, Metrics
from quasinat.serving.origin import Hosts
from quasinat.serving.reference import reference
from quasinat.serving.refusal import Refused, answer_of
from quasinat.serving.service import Service
from quasinat.serving.worker import Worker


def create_app(
    coder: Coder,
    *,
    limits: Limits | None = None,
    key: str | None = None,
    names: Sequence[str] | None = None,
    page: Callable[[Service], APIRouter] | None = None,
    hosts: Hosts | None = None,
) -> FastAPI:
    """The service as an ASGI application; its worker starts and ends with the application's lifespan.

    Args:
        coder: the layer and its classifiers; nobody else may use them while the application runs.
        limits: what a request may cost.
        key: what `Authorization: Bearer` has to say, but for the health checks, the reference and a page's files.
        names: of the classes.
        page: makes the router of a page of the service (with `GET /`), which works with what the service has.
        hosts: what the service is called; by default anything.
    """
    limits = limits or Limits()
    metrics = Metrics()
    worker = Worker(coder.code, coder.most, limits, metrics.batch)
    metrics.watch(worker)
    service = Service(coder, worker, limits, names)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            await worker.alone(coder.warm_up)
            yield
        finally:
            await asyncio.to_thread(worker.close, limits.timeout)
            service.close()

    app = FastAPI(
        title="quasinat",
        version=versions()["quasinat"],
        description="Images through a Sparse Transformation Layer, and a classifier behind it.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.worker = worker
    guards = [] if key is None else [Depends(HTTPBearer(auto_error=False))]  # for OpenAPI; `Edge` looks at the key
    app.include_router(_images(service), dependencies=guards)
    app.include_router(_operations(worker, metrics, guards))
    app.include_router(_front() if page is None else page(service), dependencies=guards)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return Response(reference(app.openapi()), media_type="text/html")

    app.add_exception_handler(StarletteHTTPException, _explained)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _unusable)
    app.add_exception_handler(UsageError, _senseless)
    paths = frozenset(str(path) for path in ("/docs", "/openapi.json", "/", *app.openapi()["paths"]))
    app.add_middleware(Edge, limits=limits, key=key, metrics=metrics, paths=paths, hosts=hosts or Hosts())
    return app


def _images(service: Service) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["images"])

    @router.post(
        "/project",
        openapi_extra=IMAGE_BODY,
        response_class=Response,
        responses={200: PNG_ANSWER, **problems(*OF_A_BODY)},
    )
    async def project(request: Request) -> Response:
        """The projection T(x) of an image, as PNG."""
        content = await request.body()
        png, stratum = await service.answered(request, service.projected(content))
        return Response(png, media_type="image/png", headers={"X-Stratum": str(stratum)})

    @router.post(
        "/classify",
        openapi_extra=IMAGE_BODY,
        response_description="The most probable classes before and after the projection.",
        responses=problems(404, *OF_A_BODY),
    )
    async def classify(
        request: Request,
        top: Annotated[int, Query(ge=1, le=1000, description="how many of the most probable classes to name")] = 5,
    ) -> Classified:
        """What the classifiers say of an image and of its projection, and how much they differ."""
        if service.coder.model is None:
            raise Refused(404, "the service has no classifier", "start it with --model CLASSIFIER.safetensors")
        content = await request.body()
        made = await service.answered(request, service.outcome(content, classify=True))
        assert made.before is not None
        assert made.after is not None
        before, after = service.opinion(made.before, top), service.opinion(made.after, top)
        return Classified(before=before, after=after, disagreement=made.disagreement, stratum=made.stratum)

    return router


def _operations(worker: Worker, metrics: Metrics, guards: Sequence[Any]) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", response_description="It lives.", responses=problems(403, 503))
    async def alive() -> Alive:
        """Whether the service lives; where it does not, start it again."""
        if not worker.alive:
            raise Refused(503, "the worker has ended or hangs", "start the service again")
        return Alive(status="ok")

    @router.get("/readyz", response_description="It does.", responses=problems(403, 503))
    async def ready() -> Alive:
        """Whether it takes requests."""
        if not worker.accepts:
            raise Refused(503, "the service takes no requests", "send them to another one")
        return Alive(status="ok")

    text = {"content": {"text/plain": {"example": "quasinat_images_total 42.0\n"}}, "description": "Its text format."}
    answers = {200: text, **problems(401, 403)}

    @router.get("/metrics", response_class=Response, responses=answers, dependencies=guards)
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


async def _senseless(request: Request, error: Exception) -> Response:
    assert isinstance(error, UsageError)
    return answer_of(Refused(400, error.problem, error.remedy))
