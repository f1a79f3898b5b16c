"""quasinat serve: the real command, its stop, and what it refuses in one line."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from layers import stratified, universal
from quasinat import cli
from quasinat.networks import save_classifier, vgg
from quasinat.serving.pictures import encode
from serving.service import CLASSES, KEY, eight_bits, png, refused

COMMAND = [sys.executable, "-m", "quasinat", "serve"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a layer, classifiers and a key."""
    folder = tmp_path_factory.mktemp("served")
    stratified().save(folder / "layer.stl")
    universal(1).save(folder / "grey.stl")
    names = {"classes": [f"class {label}" for label in range(CLASSES)]}
    for seed, name in enumerate(("retrained", "vanilla")):
        save_classifier(folder / f"{name}.safetensors", vgg("vgg-small", classes=CLASSES, seed=seed), names)
    save_classifier(folder / "two.safetensors", vgg("vgg-small", classes=2), {})
    (folder / "key").write_text(KEY + "\n")
    (folder / "short").write_text("secret\n")
    return folder


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, on files of the folder where they are named, and its address."""
    places = [str(folder / argument) if (folder / argument).exists() else argument for argument in arguments]
    command = [*COMMAND, *places, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith(f"quasinat: serving {places[0]} at http://127.0.0.1:"), line
        try:
            yield process, line.split()[-1]
        finally:
            if process.poll() is None:
                process.kill()


def test_sigterm_answers_what_was_accepted_and_ends_with_success(files: Path) -> None:
    """Requests whose bodies are on their way when the signal comes."""
    arguments = ["layer.stl", "--model", "retrained.safetensors", "--plain-model", "vanilla.safetensors"]
    image = eight_bits(1)[0]
    content = png(image)
    expected = encode(stratified().project(image[None].float() / 255)[0])
    head = f"POST /v1/project HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    with started(files, *arguments, "--api-key-file", "key") as (process, url), contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60))
        refused(httpx.post(f"{url}/v1/project", content=content, timeout=60), 401)
        page, script = (httpx.get(f"{url}{path}", timeout=60) for path in ("/", "/page/script.js"))
        assert page.text.startswith("<!DOCTYPE html>")
        assert "script.js" in page.text
        assert script.headers["content-type"].startswith("text/javascript")
        refused(httpx.post(f"{url}/v1/demo", content=content, timeout=60), 401)
        shown = client.post("/v1/demo?attack=fgsm&threat=white-box", content=content).json()
        assert set(shown["predictions"]) >= {"plain", "defended"}
        refused(client.post("/v1/demo?attack=none-such", content=content), 400)
        answer = client.post("/v1/classify", content=content).json()
        assert answer["after"]["name"] == f"class {answer['after']['label']}"
        host, port = url.removeprefix("http://").split(":")
        connections = [stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(5)]
        for connection in connections:
            connection.sendall(head.replace(b"Host", b"Authorization: Bearer " + KEY.encode() + b"\r\nHost"))
            connection.sendall(content[:30])
        while True:
            families = text_string_to_metric_families(client.get("/metrics").text)
            if {family.name: family.samples[0].value for family in families}["quasinat_in_flight"] == 5:
                break
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any("Shutting down" in line for line in process.stderr)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
        for connection in connections:
            connection.sendall(content[30:])
        for connection in connections:
            parts = []
            while part := connection.recv(2**16):
                parts.append(part)
            answer = b"".join(parts)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert answer.endswith(b"\r\n\r\n" + expected)
        out, errors = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["nowhere.stl"], 1, ["nowhere.stl is missing"]),
        (["layer.stl", "--model", "layer.stl"], 1, ["'layer', not 'classifier'"]),
        (["layer.stl", "--model", "nowhere.safetensors"], 1, ["nowhere.safetensors is missing"]),
        (["layer.stl", "--model", "resnet50"], 2, ["'resnet50' is neither a file", "hf:..."]),
        (["layer.stl", "--model", "retrained.pt2"], 1, ["there is no file retrained.pt2"]),
        (["layer.stl", "--batch", "0"], 2, ["--batch 0"]),
        (["layer.stl", "--timeout", "inf"], 2, ["--timeout inf"]),
        (["layer.stl", "--port", "70000"], 2, ["--port", "serve --help"]),
        (["layer.stl", "--host", "0.0.0.0"], 2, ["without a key", "--api-key-file", "--no-key"]),
        (["layer.stl", "--host", "::"], 2, ["without a key"]),
        (["layer.stl", "--host", "192.0.2.1", "--no-key"], 1, ["cannot listen on 192.0.2.1", "--host"]),
        (["layer.stl", "--api-key-file", "short"], 2, ["short holds no usable key", "openssl rand"]),
        (["layer.stl", "--api-key-file", "none"], 1, ["none cannot be read"]),
        (["layer.stl", "--api-key-file", "key", "--no-key"], 2, ["--no-key, and there is a key"]),
        (["layer.stl", "--plain-model", "vanilla.safetensors"], 2, ["name a --model too"]),
        (["layer.stl", "--model", "two.safetensors", "--plain-model", "vanilla.safetensors"], 2, ["other classes"]),
        (["grey.stl", "--model", "vanilla.safetensors"], 2, ["3 channels, the layer for 1"]),
        (["layer.stl", "--allow-host", "https://demo.example"], 2, ["--allow-host", "give one such as demo.example"]),
        (["layer.stl", "--allow-host", "demo.example:443"], 2, ["no name of a host"]),
        (["layer.stl", "--page-pixels", "0"], 2, ["--page-pixels 0"]),
        (["layer.stl", "--device", "tpu"], 2, ["tpu", "cpu"]),
    ],
)
def test_bad_usage_is_one_line_with_a_remedy(
    arguments: list[str],
    status: int,
    parts: list[str],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.delenv("QUASINAT_API_KEY", raising=False)
    assert cli.run(["serve", *arguments]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert all(part in captured.err for part in parts), captured.err


def test_the_key_of_the_environment_is_checked_too(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    for bad in ("", "short", "with a space in the middle", "ключ ключ ключ ключ"):
        monkeypatch.setenv("QUASINAT_API_KEY", bad)
        assert cli.run(["serve", "layer.stl"]) == 2
        assert "QUASINAT_API_KEY holds no usable key" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.delenv("QUASINAT_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run(["serve", "layer.stl", "--port", str(port)]) == 1
    line = capsys.readouterr().err.strip()
    assert f"cannot listen on 127.0.0.1 port {port}" in line
    assert "\n" not in line


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "quasinat serve cifar10.stl --model retrained.safetensors" in text
    assert "curl --data-binary @photo.png" in text


def test_without_its_packages_the_remedy_is_the_extra(files: Path) -> None:
    code = "import sys; sys.modules['fastapi'] = None; from quasinat.cli import main; main()"
    made = subprocess.run(
        [sys.executable, "-c", code, "serve", str(files / "layer.stl")], capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 2
    assert made.stderr.strip().splitlines() == [
        "quasinat: quasinat.serving needs FastAPI, uvicorn and prometheus-client; pip install 'quasinat[serve]'"
    ]


def test_without_its_page_the_front_is_the_reference(files: Path) -> None:
    with started(files, "layer.stl", "--no-page") as (_, url):
        assert httpx.get(url, timeout=60).headers["location"] == "/docs"
        assert httpx.post(f"{url}/v1/demo", content=b"x", timeout=60).status_code == 404
