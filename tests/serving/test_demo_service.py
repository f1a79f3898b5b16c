"""The demo's endpoint within the service: it keeps nobody else out, and stops when nobody waits for it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import torch

from layers import stratified
from quasinat.attacks import Linf
from quasinat.serving.demo_maths import Exhibit, GivenUpError, attack_image
from quasinat.serving.demo_options import TRUE, DemoOptions
from quasinat.serving.limits import Limits
from serving.demo_service import exhibit, patches, png, shown
from serving.service import KEY, Service, read_all, refused, until

IMAGE = png(patches()[0])
BARE = Exhibit(stratified().eval())


class Door:
    """Keeps the page's work waiting on the models' thread until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = Event(), Event()

    def __call__(self, *_: Any) -> None:
        self.reached.set()
        assert self.opened.wait(20)


def asked(service: Service, **query: str) -> Any:
    return service.post("/v1/demo", IMAGE, params=query)


def test_a_file_that_takes_long_to_decode_keeps_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door()
    monkeypatch.setattr("quasinat.serving.demo.read_image", door)
    with shown(BARE) as service, ThreadPoolExecutor(4) as clients:
        waiting = [clients.submit(asked, service) for _ in range(4)]  # more than there are threads for other files
        assert door.reached.wait(10)
        assert service.post("/v1/project", IMAGE).status_code == 200
        door.opened.set()
        assert {answer.result().status_code for answer in waiting} == {500}  # a door is no image


def test_a_full_queue_is_429_before_a_file_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    door, decoded = Door(), []
    with shown(BARE, door, limits=Limits(queue=2)) as service, ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(asked, service)]
        assert door.reached.wait(10)
        waiting += [clients.submit(asked, service) for _ in range(2)]
        until(lambda: len(service.app.state.worker) == 2)
        monkeypatch.setattr("quasinat.serving.demo.read_image", lambda *_: decoded.append(1))
        refused(asked(service), 429, "2 requests are waiting already")
        door.opened.set()
        assert {answer.result().status_code for answer in waiting} == {200}
    assert decoded == []


def test_a_visitor_who_leaves_takes_his_job_out_of_the_queue() -> None:
    door = Door()
    head = f"POST /v1/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n".encode()
    with shown(BARE, door) as service, ThreadPoolExecutor(1) as clients:
        held = clients.submit(asked, service)
        assert door.reached.wait(10)
        with service.connect() as leaving:
            leaving.sendall(head + IMAGE)
            until(lambda: len(service.app.state.worker) == 1)
        until(lambda: len(service.app.state.worker) == 0)
        until(lambda: service.metric("quasinat_refused_total", reason="client gone") == 1)
        door.opened.set()
        assert held.result().status_code == 200


def test_an_attack_that_takes_too_long_is_504_and_ends() -> None:
    """It asks its classifier no more, and the next request finds the models free."""
    door, plain = Door(), exhibit().plain_model
    assert plain is not None
    answers: list[Any] = []
    counting = plain.register_forward_hook(lambda *_: answers.append(1))
    try:
        with shown(exhibit(), door, limits=Limits(timeout=1.0)) as service:
            refused(asked(service, attack="carlini-wagner"), 504, "no answer within 1 seconds; choose fewer pixels")
            answers.clear()  # of the service's warming up
            door.opened.set()
            assert service.post("/v1/project", IMAGE).status_code == 200
            assert answers == []
    finally:
        counting.remove()


@pytest.mark.parametrize("attack", ["bim", "pgd", "deepfool", "carlini-wagner"])
def test_an_attack_ends_at_the_next_step_after_it_was_given_up(attack: str) -> None:
    model, over = exhibit().model, Event()
    assert model is not None
    steps: list[int] = []

    def count(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 3:
            over.set()

    counting = model.register_forward_hook(count)
    try:
        with pytest.raises(GivenUpError):
            attack_image(exhibit(), patches()[0], DemoOptions(attack, TRUE, Linf(8 / 255), 0.05, 32), over)
    finally:
        counting.remove()
    assert len(steps) == 3


def test_an_attack_leaves_no_hook_behind() -> None:
    plain = exhibit().plain_model
    assert plain is not None
    hooks: Callable[[], int] = lambda: len(plain._forward_pre_hooks)  # noqa: E731
    before = hooks()
    attack_image(exhibit(), patches()[0], DemoOptions("fgsm", "gray-box", Linf(8 / 255), 0.05, 32), Event())
    assert hooks() == before


def test_its_bounds_are_the_services() -> None:
    large = png(torch.rand(3, 40, 40))
    with shown(BARE, limits=Limits(page_pixels=3 * 1000, max_bytes=10_000)) as service:
        refused(service.post("/v1/demo", large), 422, "40 x 40 pixels, more than 1000 in all")
        refused(service.post("/v1/demo", bytes(10_001)), 413, "more than 10000 bytes")
        refused(asked(service, attack="none-such"), 400, "unknown attack")
    with shown(BARE, limits=Limits(body_timeout=0.5)) as service, service.connect() as slow:
        slow.sendall(b"POST /v1/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nsome")
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")


def test_it_needs_the_key_and_its_files_do_not() -> None:
    with shown(BARE, key=KEY) as service:
        assert asked(service).status_code == 200
        strangers = {"Authorization": ""}
        refused(service.post("/v1/demo", IMAGE, headers=strangers), 401, "the key is missing or wrong")
        refused(service.client.get("/v1/demo", headers=strangers), 401)
        for path in ("/", "/page/script.js", "/page/photographs/chelsea"):
            assert service.client.get(path, headers=strangers).status_code == 200
