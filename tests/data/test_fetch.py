"""Downloads from a server of our own: whole, cut, resumed, of other content, without ranges, missing."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from quasinat.cli import run
from quasinat.data import cifar10, fetch
from quasinat.data.download import download
from quasinat.data.fetch import FOLDER, fetch_cifar10, unpack
from quasinat.errors import InputError, OutputError

from .tiny_cifar10 import tiny_cifar10

CONTENT = np.random.default_rng(0).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What it serves and how, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers are cut
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if self.path != "/file" or start >= len(state.content):
                self.send_error(404 if self.path != "/file" else 416)
                return
            rest = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: state.cuts.pop(0)] if state.cuts else rest)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        state.url = f"http://127.0.0.1:{served.server_port}/file"
        Thread(target=served.serve_forever, daemon=True).start()
        yield state
        served.shutdown()


def test_a_file_comes_whole_and_once(server: Server, tmp_path: Path) -> None:
    heard: list[int] = []
    for _ in range(2):
        assert download(server.url, tmp_path / "new" / "a", SHA256, report=heard.append).read_bytes() == CONTENT
    assert server.asked == [None]
    assert heard == sorted(heard)
    assert heard[-1] == len(CONTENT)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


def test_a_cut_connection_goes_on_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    server.cuts = [400_000, 300_000]
    assert download(server.url, tmp_path / "a", SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=400000-", "bytes=700000-"]


def test_a_server_that_gives_nothing_more_is_left_with_what_came_and_the_next_call_goes_on(
    server: Server, tmp_path: Path
) -> None:
    server.cuts = [250_000, 0]
    with pytest.raises(InputError, match=r"was cut after 250,000 bytes, with 750,000 to come; run the command again"):
        download(server.url, tmp_path / "a", SHA256)
    assert not (tmp_path / "a").exists()
    assert download(server.url, tmp_path / "a", SHA256).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=250000-"


def test_without_ranges_it_starts_afresh(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    assert download(server.url, tmp_path / "a", SHA256).read_bytes() == CONTENT


def test_a_whole_part_needs_no_more(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "a", SHA256).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("part", [b"", b"of another file"])
def test_another_file_is_refused_and_not_kept(server: Server, tmp_path: Path, part: bytes) -> None:
    """Also where the beginning is left from another file: the next call starts afresh."""
    if part:
        (tmp_path / "a.part").write_bytes(part)
    else:
        server.content = CONTENT[::-1]
    with pytest.raises(InputError, match="is not the file that it should be"):
        download(server.url, tmp_path / "a", SHA256)
    assert not list(tmp_path.iterdir())
    server.content = CONTENT
    assert download(server.url, tmp_path / "a", SHA256).read_bytes() == CONTENT


def test_a_file_that_is_there_but_another_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"older")
    assert download(server.url, tmp_path / "a", SHA256).read_bytes() == CONTENT


def test_what_cannot_be_reached_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answers 404"):
        download(f"{server.url}-not", tmp_path / "a", SHA256)
    for url in ("http://127.0.0.1:9/file", "no address"):
        with pytest.raises(InputError, match="cannot be reached"):
            download(url, tmp_path / "a", SHA256)
    (tmp_path / "taken").write_text("a file where a folder has to be")
    with pytest.raises(OutputError, match="cannot be written"):
        download(server.url, tmp_path / "taken" / "a", SHA256)


def archive_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


FILES = {"data_batch_1": b"one", "test_batch": b"two" * 1000}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}


def held(extra: dict[str, bytes] | None = None) -> bytes:
    return archive_of({f"{FOLDER}/{name}": content for name, content in FILES.items()} | (extra or {}))


def test_the_archive_is_fetched_unpacked_and_removed_and_nothing_else_gets_out(server: Server, tmp_path: Path) -> None:
    server.content = held({"../outside": b"no", f"{FOLDER}/readme.html": b"no"})
    options = {"url": server.url, "sha256": hashlib.sha256(server.content).hexdigest(), "files": MD5}
    dest = tmp_path / "dest"
    folder = fetch_cifar10(dest, **options)
    assert folder == dest / FOLDER
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert [path.name for path in dest.iterdir()] == [FOLDER]
    assert [path.name for path in tmp_path.iterdir()] == ["dest"]
    fetch_cifar10(dest, **options)
    assert len(server.asked) == 1
    (folder / "test_batch").write_bytes(b"damaged")
    fetch_cifar10(dest, **options)
    assert (folder / "test_batch").read_bytes() == FILES["test_batch"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no archive", "no intact archive"),
        (held()[:60], "no intact archive"),
        (archive_of({f"{FOLDER}/data_batch_1": b"one"}), "no intact archive"),
        (archive_of({f"{FOLDER}/{name}": b"other" for name in FILES}), "holds another data_batch_1"),
    ],
    ids=["no archive", "cut", "one file", "other files"],  # an archive's bytes hold the time
)
def test_what_is_not_the_archive_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=why):
        unpack(tmp_path / "a.tar.gz", tmp_path / FOLDER, MD5)


def test_the_command_says_where_the_images_are(
    real_data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whole batches are recognised by their published digests, and not fetched again."""
    assert run(["data", "cifar10", "--dest", str(real_data), "--url", "http://127.0.0.1:9/file"]) == 0
    assert capsys.readouterr().out.strip() == str(real_data / FOLDER)
    assert run(["data", "cifar10", "--dest", str(tmp_path), "--url", "http://127.0.0.1:9/file"]) == 1
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("named", [True, False], ids=["--url", "the usual address"])
def test_the_command_fetches_the_images_and_prints_where_they_are(
    named: bool, server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an archive of tiny batches, whose digests stand in for the published ones."""
    expected = tiny_cifar10(tmp_path / "made", monkeypatch)
    batches = {path.name: path.read_bytes() for path in (tmp_path / "made" / FOLDER).iterdir()}
    server.content = archive_of({f"{FOLDER}/{name}": content for name, content in batches.items()})
    server.cuts = [1000]
    known = {
        "sha256": hashlib.sha256(server.content).hexdigest(),
        "files": {name: hashlib.md5(content).hexdigest() for name, content in batches.items()},
    }
    monkeypatch.setattr(fetch, "fetch_cifar10", partial(fetch_cifar10, **known))
    monkeypatch.setattr(fetch, "CIFAR10_URL", "http://127.0.0.1:9/file" if named else server.url)
    command = ["data", "cifar10", "--dest", str(tmp_path / "data"), *(["--url", server.url] if named else [])]
    for _ in range(2):
        assert run(command) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'data' / FOLDER}\n"
    assert server.asked == [None, "bytes=1000-"]  # goes on where it was cut, and asks no more for what is whole
    images, _ = cifar10(tmp_path / "data", "train")
    assert (images * 255).round().to(expected.dtype).equal(expected)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FOLDER]
