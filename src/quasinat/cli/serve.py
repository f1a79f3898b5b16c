"""quasinat serve: a layer, and a classifier behind it, as a service over HTTP."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer


def serve(
    layer: Annotated[Path, typer.Argument(metavar="LAYER", help="The layer, as `learn layer` writes it.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The classifier of projected images: of `train` or, as in `defend`, your own.",
        ),
    ] = None,
    plain_model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A classifier of images as they are, to compare with; --model by default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; other machines than this one need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the key that clients send; else QUASINAT_API_KEY is read.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name by which a proxy is asked for this service; may come again.")
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Let other machines in without a key.")] = False,
    batch: Annotated[int, typer.Option(help="Images of one size coded together, at most.")] = 16,
    wait_ms: Annotated[float, typer.Option(help="How long an image waits for others, in milliseconds.")] = 4.0,
    queue: Annotated[int, typer.Option(help="Requests that wait, at most; then 429.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds from a whole request to its answer; then 504.")] = 30.0,
    body_timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive; then 408.")] = 10.0,
    max_bytes: Annotated[int, typer.Option(help="Of a request's body; then 413.")] = 8 * 2**20,
    max_pixels: Annotated[int, typer.Option(help="Of an image, by its header; then 422.")] = 2**20,
    page_pixels: Annotated[int, typer.Option(help="Of a JPEG on the page; other files, a third.")] = 25_000_000,
    no_page: Annotated[
        bool, typer.Option("--no-page", help="Without the page that attacks an image and shows it.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    access_log: Annotated[bool, typer.Option("--access-log", help="Write a line for each request to stderr.")] = False,
) -> None:
    """Serve a layer: POST /v1/project gives an image's projection, POST /v1/classify what a classifier says before
    and after it; /healthz, /readyz, /metrics, /docs. In a browser, / attacks an image and shows what becomes of it.

    SIGTERM and Ctrl-C answer what was accepted, and end with status 0.

    Example:  quasinat serve cifar10.stl --model retrained.safetensors --plain-model vanilla.safetensors

    Then:  curl --data-binary @photo.png http://127.0.0.1:8000/v1/project -o projected.png
    """
    from quasinat.experiments.devices import device_named
    from quasinat.interop import classifier_named
    from quasinat.layer import SparseTransformationLayer
    from quasinat.serving.app import create_app
    from quasinat.serving.classes import class_names
    from quasinat.serving.coder import Coder
    from quasinat.serving.demo import demo_router
    from quasinat.serving.demo_maths import Exhibit
    from quasinat.serving.key import read_key
    from quasinat.serving.limits import Limits
    from quasinat.serving.server import address, check_reach, listen, own_hosts, server

    limits = Limits(batch, wait_ms, queue, timeout, body_timeout, max_bytes, max_pixels, page_pixels)
    key = read_key(api_key_file)
    check_reach(host, key, no_key)
    classifier, plain = (None if name is None else classifier_named(name) for name in (model, plain_model))
    coder = Coder(SparseTransformationLayer.load(layer), classifier, plain, device_named(device))
    names = class_names(classifier, plain)
    page = partial(demo_router, Exhibit(coder.layer, classifier, plain, names))
    hosts = own_hosts(host, key, allow_host or [])
    app = create_app(coder, limits=limits, key=key, names=names, page=None if no_page else page, hosts=hosts)
    with listen(host, port) as listening:
        print(f"quasinat: serving {layer} at {address(listening)}", file=sys.stderr, flush=True)
        server(app, limits, access_log=access_log).run(sockets=[listening])
