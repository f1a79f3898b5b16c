"""Pages of other sites in a browser that reaches the service: what they send is refused, what people do is not."""

from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers

from quasinat.serving.origin import Hosts, check_origin
from quasinat.serving.refusal import Refused
from quasinat.serving.server import own_hosts
from serving.service import KEY, Service, coder, eight_bits, page_of, png, refused, serving

PATHS = ("/v1/project", "/v1/classify", "/v1/demo?attack=none")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Without a key on the loopback, as it is started by default."""
    made = coder()
    with serving(made, page=page_of(made)) as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},  # what a page sends without asking first: fetch, mode no-cors; a form
        {"Origin": "null"},  # of a sandboxed frame, or a file
        {"Origin": "http://127.0.0.1:1"},  # of another service on this machine
        {"Origin": "http://127.0.0.1@evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},  # with a body it is a form
    ],
)
def test_what_a_page_of_another_site_sends_is_403(path: str, headers: dict[str, str], service: Service) -> None:
    before = service.metric("quasinat_refused_total", reason="foreign")
    answer = service.post(path, png(eight_bits(1)[0]), headers={"Content-Type": "text/plain", **headers})
    refused(answer, 403, "a page of another site asks", "the service's own page")
    assert service.metric("quasinat_refused_total", reason="foreign") == before + 1


@pytest.mark.parametrize("path", [*PATHS, "/", "/metrics", "/healthz", "/openapi.json"])
@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[", "10.0.0.1"]
)
def test_a_name_that_was_made_to_mean_this_machine_is_403(path: str, name: str, service: Service) -> None:
    """DNS rebinding: to the browser the page is the service's own, and could read every answer."""
    method = "POST" if path in PATHS else "GET"
    headers = {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}
    refused(service.client.request(method, path, headers=headers), 403, "the service is not called", "--allow-host")


@pytest.mark.parametrize("path", PATHS)
def test_its_own_page_and_programs_are_let_in(path: str, service: Service) -> None:
    port = service.url.rpartition(":")[2]
    for headers in (
        {},
        {"Origin": service.url, "Sec-Fetch-Site": "same-origin"},
        {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Host": "[::1]:8000", "Origin": "http://[::1]:8000"},
        {"Host": "127.8.9.10"},
    ):
        assert service.post(path, png(eight_bits(1)[0]), headers=headers).status_code == 200, headers


def test_a_link_from_another_page_is_followed_and_nothing_else(service: Service) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert service.client.get("/", headers=link).status_code == 200
    refused(service.client.get("/metrics", headers=link | {"Sec-Fetch-Mode": "no-cors"}), 403)
    refused(service.client.options("/v1/project", headers={"Origin": "https://evil.example"}), 403)


def admitted(hosts: Hosts, **headers: str) -> bool:
    try:
        check_origin("POST", Headers(headers), hosts)
    except Refused:
        return False
    return True


def test_behind_a_proxy_its_name_is_the_services() -> None:
    """Whether the proxy passes the name on or not, with a key or without."""
    page = {"origin": "https://demo.example"}
    for key in (None, KEY):
        named = own_hosts("127.0.0.1", key, ["Demo.example"])
        assert admitted(named, host="demo.example", **page)
        assert admitted(named, host="127.0.0.1:8000", **page)
        assert not admitted(named, host="127.0.0.1:8000", origin="https://evil.example")
    unnamed = own_hosts("127.0.0.1", KEY, [])
    assert admitted(unnamed, host="demo.example", **page)
    assert not admitted(unnamed, host="127.0.0.1:8000", **page)
    assert not admitted(own_hosts("127.0.0.1", None, []), host="demo.example", **page)
    assert admitted(own_hosts("10.0.0.1", None, []), host="demo.example", **page)
