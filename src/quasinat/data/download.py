"""A file from the network: resumed where it was cut, checked against its digest, whole or not there at all."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from quasinat.artefact import file_digest
from quasinat.errors import InputError, OutputError

BLOCK = 2**18
ATTEMPTS = 5  # at a cut connection, as long as each brings something
TIMEOUT = 60  # seconds without a byte
_DIGITS = 20  # of a number of bytes


def download(
    url: str, path: Path, sha256: str, *, most: int = 2**40, report: Callable[[int], None] | None = None
) -> Path:
    """Fetches `url` into `path`, unless the file is there already and is the right one.

    What has come in so far lies in `PATH.part`, from which the next attempt, or the next call, goes on.

    Args:
        sha256: the digest of the file, 64 hexadecimal digits.
        most: bytes that it can have; whoever sends more is not listened to.
        report: called with the bytes that are there.

    Raises:
        InputError: the server cannot be reached or has no such file, the connection is cut again and again, or the file
            is another one; in the last case nothing of it is kept.
        OutputError: the file cannot be written.
    """
    if path.is_file() and file_digest(path) == sha256:
        return path
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, most, report or _unheard)
        if file_digest(part) != sha256:
            part.unlink()
            problem = f"{url} is not the file that it should be (its SHA-256 is another)"
            raise InputError(problem, "run the command again; if that does not help, name another source with --url")
        part.replace(path)
    except (InputError, OutputError):
        raise
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror or error})"
        raise OutputError(problem, "check the folder and the space left") from None
    return path


def _unheard(done: int) -> None:
    return None


def _fetch(url: str, part: Path, most: int, report: Callable[[int], None]) -> None:
    """Until the file is whole: each attempt goes on where the last one was cut, if the server lets it."""
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        missing = _continue(url, part, before, most, report)
        if not missing:
            return
        after = part.stat().st_size
        if after <= before or attempt == ATTEMPTS:
            problem = f"the connection to {url} was cut after {after:,} bytes, with {missing:,} to come"
            raise InputError(problem, "run the command again: it goes on from there")


def _continue(url: str, part: Path, done: int, most: int, report: Callable[[int], None]) -> int:
    """One attempt; how many bytes are missing after it."""
    headers = {"User-Agent": "quasinat", "Accept-Encoding": "identity"}
    try:
        request = urllib.request.Request(url, headers=headers | ({"Range": f"bytes={done}-"} if done else {}))
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and done:  # there is nothing after what we have: whole, or of another file
            return 0
        raise InputError(f"{url} answers {error.code} {error.reason}", "check the address, or try later") from None
    except (OSError, ValueError, http.client.HTTPException) as error:  # such as an address or an answer that is none
        reason = getattr(error, "reason", error)
        raise InputError(f"{url} cannot be reached ({reason})", "check the address and the network") from None
    with response:
        goes_on = response.status == 206
        said = response.headers.get("Content-Length") or ""
        expected = int(said) if said.isdecimal() and len(said) < _DIGITS else 0
        done, came = (done if goes_on else 0), 0
        with part.open("ab" if goes_on else "wb") as file:
            while block := _read(response):
                file.write(block)
                came += len(block)
                report(done + came)
                if done + came > most:
                    file.close()
                    part.unlink()
                    raise InputError(f"{url} sends more than the {most:,} bytes of the file", "name another source")
    return max(0, expected - came)


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes; none where the connection is cut, which the count of bytes then tells."""
    try:
        return response.read1(BLOCK)
    except (OSError, http.client.HTTPException):
        return b""
