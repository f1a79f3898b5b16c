"""The service over real connections: every status, right answers under concurrency, and clients that misbehave."""

import contextlib
import io
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from PIL import Image

from quasinat.defended import Defended
from quasinat.serving.app import create_app
from quasinat.serving.coder import Asked, Coder
from quasinat.serving.edge import OPEN
from quasinat.serving.limits import Limits
from quasinat.serving.pictures import encode
from serving.files import bombs, saved
from serving.service import (
    KEY,
    NAMES,
    Gate,
    Service,
    coder,
    eight_bits,
    opened,
    page_of,
    png,
    read_all,
    refused,
    serving,
    until,
)


@pytest.fixture(scope="module")
def made() -> Coder:
    return coder()


@pytest.fixture(scope="module")
def service(made: Coder) -> Iterator[Service]:
    """One as it is started by default, with its page, but for bounds that a test can pass."""
    with serving(made, Limits(max_bytes=2**16, max_pixels=10_000), names=NAMES, page=page_of(made)) as running:
        yield running


# Answers


def test_a_projection_is_the_layers(made: Coder, service: Service) -> None:
    for image in eight_bits(3):
        answer = service.post("/v1/project", png(image))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        expected = made.layer.project(image[None].float() / 255)
        assert answer.content == encode(expected[0])
        assert answer.headers["x-stratum"] == str(int(made.layer.stratum(image[None].float() / 255)))


@pytest.mark.parametrize("kind", ["jpeg", "webp", "bmp", "progressive", "lossless"])
def test_every_format_is_taken_by_its_content(kind: str, service: Service) -> None:
    picture = Image.fromarray(eight_bits(1)[0].permute(1, 2, 0).numpy())
    content = saved(picture, kind)
    answer = service.post("/v1/project", content, headers={"Content-Type": "text/plain"})
    file = io.BytesIO()
    opened(content).save(file, "PNG")
    assert answer.content == service.post("/v1/project", file.getvalue()).content


def test_grey_images_become_the_layers(service: Service) -> None:
    grey = eight_bits(1, channels=1)[0]
    assert (
        service.post("/v1/project", png(grey)).content
        == service.post("/v1/project", png(grey.expand(3, -1, -1))).content
    )


def test_a_layer_of_grey_images_answers_in_grey() -> None:
    made = coder(channels=1, classify=False)
    colour = eight_bits(1)[0]
    with serving(made) as service:
        answer = opened(service.post("/v1/project", png(colour)).content)
        assert (answer.mode, answer.size) == ("L", (20, 20))
        refused(service.post("/v1/classify", png(colour)), 404, "no classifier; start it with --model")


def test_a_classification_is_that_of_the_defended_network(made: Coder, service: Service) -> None:
    image = eight_bits(1, 24, 31)
    answer = service.post("/v1/classify?top=3", png(image[0])).json()
    x = image.float() / 255
    after = Defended(made.layer, made.model)(x)[0].detach().double().softmax(0)
    before = made.plain_model(x)[0].detach().double().softmax(0)
    for found, expected in ((answer["before"], before), (answer["after"], after)):
        values, labels = expected.sort(descending=True)
        assert [likely["label"] for likely in found["top"]] == labels[:3].tolist()
        assert [likely["probability"] for likely in found["top"]] == values[:3].tolist()
        assert [likely["name"] for likely in found["top"]] == [NAMES[label] for label in labels[:3].tolist()]
        assert (found["label"], found["name"]) == (int(labels[0]), NAMES[int(labels[0])])
    assert answer["disagreement"] == pytest.approx(0.5 * float((before - after).abs().sum()))
    assert answer["stratum"] == int(made.layer.stratum(x))
    assert len(service.post("/v1/classify", png(image[0])).json()["after"]["top"]) == 5


def test_many_at_once_are_batched_and_each_gets_its_own(made: Coder) -> None:
    images = [image for size in ((20, 20), (20, 23), (26, 20)) for image in eight_bits(12, *size)]
    alone = [encode(made.code([Asked(image, False)])[0].projected) for image in images]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    gate = Gate()
    with serving(made, Limits(batch=8), page=gate.router) as service, ThreadPoolExecutor(40) as clients:
        held = clients.submit(service.client.get, "/v1/hold")
        assert gate.entered.wait(10)
        answers = {place: clients.submit(service.post, "/v1/project", png(images[place])) for place in order}
        until(lambda: len(service.app.state.worker) == len(images))
        assert service.metric("quasinat_queue_length") == len(images)
        gate.open.set()
        for place, answer in answers.items():
            assert answer.result().content == alone[place]
        assert held.result().json() is True
        # The twelve images of each size are a batch of eight and one of four.
        assert service.metric("quasinat_batch_images_count") == 6
        assert service.metric("quasinat_batch_images_sum") == service.metric("quasinat_images_total") == 36


# Refusals


@pytest.mark.parametrize("path", ["/v1/project", "/v1/classify"])
def test_what_is_no_usable_image_is_422(path: str, service: Service) -> None:
    good = png(eight_bits(1)[0])
    for content, part in (
        (b"", "the body is empty"),
        (b"not an image", "no image of a known format"),
        (good[: len(good) // 2], "cannot be decoded"),
        (png(eight_bits(1, 4, 30)[0]), "4 x 30 pixels, fewer than"),
        (png(torch.zeros(3, 101, 100, dtype=torch.uint8)), "101 x 100 pixels, more than 10000 in all"),
    ):
        refused(service.post(path, content), 422, part)


def test_bombs_are_422(service: Service) -> None:
    for kind, content in bombs().items():
        if len(content) < 2**16:
            refused(service.post("/v1/project", content), 422, "more than 10000 in all")
        else:
            assert kind == "png"
            refused(service.post("/v1/project", content), 413)


def test_a_body_that_is_too_large_is_413_told_or_not(service: Service) -> None:
    refused(service.post("/v1/project", bytes(2**16 + 1)), 413, "more than 65536 bytes; send a smaller file")

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(2**12)

    refused(service.post("/v1/project", parts()), 413, "more than 65536 bytes")
    with service.connect() as connection:  # one that asks first is told before it sends
        connection.sendall(
            b"POST /v1/project HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_paths_methods_and_parameters(service: Service) -> None:
    refused(service.client.get("/nothing"), 404, "there is no such path; see /docs")
    refused(service.client.get("/etc/passwd"), 404)
    refused(service.client.get("/page/../../../etc/passwd"), 404)
    refused(service.client.get("/v1/project"), 405, "does not take this method")
    refused(service.post("/v1/classify?top=0", png(eight_bits(1)[0])), 422, "top: ")
    refused(service.post("/v1/classify?top=x", png(eight_bits(1)[0])), 422, "top: ")


def test_the_key_opens_and_nothing_else_does(made: Coder) -> None:
    image = png(eight_bits(1)[0])
    with serving(made, key=KEY) as service:
        assert service.post("/v1/project", image).status_code == 200
        assert service.client.get("/metrics").status_code == 200
        wrong = [
            "",
            "Bearer",
            f"Bearer {KEY}x",
            f"Bearer {KEY[:-1]}",
            f"Basic {KEY}",
            KEY,
            "Bearer é".encode("latin-1"),
        ]
        for given in wrong:
            headers = {"Authorization": given}
            for path in ("/v1/project", "/v1/classify", "/v1/nothing"):
                answer = service.post(path, image, headers=headers)
                refused(answer, 401, "the key is missing or wrong")
                assert answer.headers["www-authenticate"] == "Bearer"
            refused(service.client.get("/metrics", headers=headers), 401)
            for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
                assert service.client.get(path, headers=headers).status_code == 200
        assert service.metric("quasinat_refused_total", reason="key") == 4 * len(wrong)


def test_a_full_queue_is_429_and_late_answers_are_504(made: Coder) -> None:
    image, gate = png(eight_bits(1)[0]), Gate()
    limits = Limits(queue=2, timeout=2.5)
    with serving(made, limits, page=gate.router) as service, ThreadPoolExecutor(8) as clients:
        held = clients.submit(service.client.get, "/v1/hold")
        assert gate.entered.wait(10)
        waiting = [clients.submit(service.post, "/v1/project", image) for _ in range(2)]
        until(lambda: len(service.app.state.worker) == 2)
        for answer in (service.post("/v1/project", image), service.client.get("/v1/hold")):
            refused(answer, 429, "2 requests are waiting already; send it again")
            assert answer.headers["retry-after"] == "1"
        for late in (*waiting, held):
            refused(late.result(), 504, "no answer within 2.5 seconds")
        assert len(service.app.state.worker) == 0
        gate.open.set()
        assert service.post("/v1/project", image).status_code == 200
        assert service.metric("quasinat_images_total") == 1  # what was given up was not coded
        assert service.metric("quasinat_refused_total", reason="full") == 2
        assert service.metric("quasinat_refused_total", reason="timeout") == 3


def test_with_no_patience_it_still_starts(made: Coder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "warm_up", lambda: time.sleep(0.1))
    with serving(made, Limits(timeout=0.001, wait_ms=50.0)) as service:
        refused(service.post("/v1/project", png(eight_bits(1)[0])), 504, "no answer within 0.001 seconds")
        assert service.client.get("/readyz").status_code == 200


def test_only_so_many_are_in_flight(made: Coder) -> None:
    with serving(made, Limits(queue=1)) as service, contextlib.ExitStack() as connections:
        for _ in range(2):
            slow = connections.enter_context(service.connect())
            slow.sendall(b"POST /v1/project HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome")
        until(lambda: service.metric("quasinat_in_flight") == 2)
        refused(service.post("/v1/project", png(eight_bits(1)[0])), 429, "2 requests are in flight already")
        assert service.client.get("/healthz").status_code == 200


def test_a_failure_of_ours_is_500_without_details(made: Coder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(asked: list[Asked]) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(made, "warm_up", lambda: None)
    monkeypatch.setattr(made, "code", fails)
    with serving(made) as service:
        answer = service.post("/v1/project", png(eight_bits(1)[0]))
        refused(answer, 500, "the service failed at this request")
        assert "secret" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert service.metric("quasinat_requests_total", path="/v1/project", status="500") == 1
        assert service.client.get("/readyz").status_code == 200


# Clients that misbehave


def test_a_slow_body_is_408_and_a_slow_head_is_cut_off(made: Coder) -> None:
    with (
        serving(made, Limits(body_timeout=0.5)) as service,
        service.connect() as body,
        service.connect() as head,
        service.connect() as silent,
    ):
        body.sendall(b"POST /v1/project HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome")
        for letter in b"POST /v1/pr":  # each a sign of life, which buys no time
            with contextlib.suppress(OSError):
                head.sendall(bytes([letter]))
            time.sleep(0.1)
        answer = read_all(body)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not arrive within 0.5 seconds" in answer
        assert b"connection: close" in answer.lower()
        with contextlib.suppress(ConnectionResetError):
            assert read_all(head) == b""
        assert read_all(silent) == b""
        assert service.metric("quasinat_refused_total", reason="slow") == 1


def test_a_connection_serves_several_requests(service: Service) -> None:
    with httpx.Client(base_url=service.url) as client, service.connect() as connection:
        assert [client.get("/healthz").status_code for _ in range(3)] == [200] * 3
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(2 * request)
        connection.sendall(request.replace(b"Host", b"Connection: close\r\nHost"))
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 3


def test_cut_connections_leave_nothing_behind(made: Coder) -> None:
    image, gate = png(eight_bits(1)[0]), Gate()
    head = f"POST /v1/project HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n".encode()
    with serving(made, page=gate.router) as service, ThreadPoolExecutor(2) as clients:
        held = clients.submit(service.client.get, "/v1/hold")
        assert gate.entered.wait(10)
        with service.connect() as early, service.connect() as late:
            early.sendall(head + image[:50])
            late.sendall(head + image)
            until(lambda: len(service.app.state.worker) == 1)
            until(lambda: service.metric("quasinat_in_flight") == 2)
        until(lambda: len(service.app.state.worker) == 0)
        until(lambda: service.metric("quasinat_refused_total", reason="client gone") == 2)
        assert service.metric("quasinat_in_flight") == 0
        gate.open.set()
        assert held.result().status_code == 200
        assert service.metric("quasinat_images_total") == 0
        assert service.post("/v1/project", image).status_code == 200


def test_rubbish_is_answered_with_400(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\ncontent-type: application/json" in head
    assert b"\r\nconnection: close" in head
    refused(httpx.Response(400, content=body), 400, "this is no request of HTTP/1.1; see the reference at /docs")
    assert service.client.get("/healthz").status_code == 200


# Operations


def test_health_and_readiness_follow_the_worker(made: Coder) -> None:
    with serving(made) as service:
        assert service.client.get("/healthz").json() == service.client.get("/readyz").json() == {"status": "ok"}
        service.app.state.worker.close()
        refused(service.client.get("/healthz"), 503, "the worker has ended or hangs; start the service again")
        refused(service.client.get("/readyz"), 503, "takes no requests")
        answer = service.post("/v1/project", png(eight_bits(1)[0]))
        refused(answer, 503, "the service is stopping")
        assert answer.headers["retry-after"] == "5"


def test_a_stop_answers_what_was_accepted(made: Coder) -> None:
    image, gate = png(eight_bits(1)[0]), Gate()
    with ThreadPoolExecutor(4) as clients, serving(made, page=gate.router) as service:
        held = clients.submit(service.client.get, "/v1/hold")
        assert gate.entered.wait(10)
        waiting = [clients.submit(service.post, "/v1/project", image) for _ in range(3)]
        until(lambda: len(service.app.state.worker) == 3)
        service.server.should_exit = True
        time.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            service.client.get("/healthz")
        gate.open.set()
        assert held.result().status_code == 200
        assert {answer.result().status_code for answer in waiting} == {200}


def test_every_answer_has_the_headers_of_a_careful_service(service: Service) -> None:
    for answer in (
        service.post("/v1/project", png(eight_bits(1)[0])),
        service.post("/v1/project", b""),
        service.client.get("/docs"),
        service.client.get("/metrics"),
        service.client.get("/nothing"),
    ):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_requests_are_counted_by_path_and_status(service: Service) -> None:
    def counted(path: str, status: str) -> float:
        return service.metric("quasinat_requests_total", path=path, status=status)

    paths = [("/v1/project", "200"), ("/v1/project", "422"), ("other", "404")]
    before = [counted(*each) for each in paths]
    latencies = service.metric("quasinat_request_seconds_count", path="/v1/project")
    service.post("/v1/project", png(eight_bits(1)[0]))
    service.post("/v1/project", b"")
    for name in range(3):
        service.client.get(f"/nothing/{name}")
    assert [counted(*each) for each in paths] == [before[0] + 1, before[1] + 1, before[2] + 3]
    assert service.metric("quasinat_request_seconds_count", path="/v1/project") == latencies + 2


def test_openapi_describes_every_answer_with_examples(service: Service) -> None:
    schema = service.client.get("/openapi.json").json()
    assert {"/v1/project", "/v1/classify", "/v1/demo", "/healthz", "/readyz", "/metrics"} == set(schema["paths"])
    for path in ("/v1/project", "/v1/classify", "/v1/demo"):
        operation = schema["paths"][path]["post"]
        assert {"200", "401", "403", "408", "413", "422", "429", "500", "503", "504"} <= set(operation["responses"])
        assert {"image/png", "image/jpeg", "image/webp", "image/bmp"} <= set(operation["requestBody"]["content"])
        assert operation["description"]
        assert all(answer["description"] for answer in operation["responses"].values())
    components = schema["components"]["schemas"]
    assert not [name for name in components if "Validation" in name]  # FastAPI's own, which is never sent
    assert "400" in schema["paths"]["/v1/demo"]["post"]["responses"]
    assert components["Classified"]["examples"]
    assert components["Problem"]["examples"]
    sent = service.post("/v1/classify", png(eight_bits(1)[0])).json()
    assert set(sent) == set(components["Classified"]["examples"][0]) == set(components["Classified"]["required"])


def test_the_reference_names_every_path_and_loads_nothing(service: Service) -> None:
    page = service.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in (
        "POST /v1/project",
        "POST /v1/classify",
        "POST /v1/demo",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    ):
        assert path in page.text
    assert re.findall(r"\(by default ([^)]+)\)", page.text) == ["5", "pgd", "gray-box", "linf:8/255", "0.05", "32"]
    assert "None" not in page.text
    for loading in ("<script", "<link", "src=", "http://", "https://", "style="):
        assert loading not in page.text


def test_openapi_marks_what_needs_the_key(made: Coder) -> None:
    """And only there, where there is one."""
    for key, names in ((KEY, ["HTTPBearer"]), (None, [])):
        schema = create_app(made, key=key, page=page_of(made)).openapi()
        operations = {path: each for path, methods in schema["paths"].items() for each in methods.values()}
        for path, operation in operations.items():
            marked = [name for schemes in operation.get("security", []) for name in schemes]
            assert marked == ([] if path in OPEN else names), path


def test_it_keeps_no_thread_or_file_after_many_requests(made: Coder) -> None:
    image = png(eight_bits(1)[0])
    with serving(made) as service, ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda _: service.post("/v1/project", image), range(16)))
        until(lambda: service.metric("quasinat_in_flight") == 0)
        threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
        list(clients.map(lambda place: service.post("/v1/project", image if place % 2 else image[:60]), range(64)))
        until(lambda: service.metric("quasinat_in_flight") == 0)
        assert threading.active_count() <= threads
        until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files)
