"""The service under full load with faults mixed in, every answer checked, and what it holds on to.

    python benchmarks/soak.py --minutes 10 --out results/reliability/soak.json

On an idle machine with at least two cores. A real `quasinat serve` (one thread, a layer learned from the built-in
photographs, two untrained networks) is given images of four sizes and five kinds of file by clients that ask again at
once, more of them than its queue holds. Beside them others send garbage, cut-off images, bombs, bodies that are too
large or too slow, and cut their connections; a visitor of the page attacks an image now and then. Every good answer is
compared with what the layer and the networks give that image alone, bytes and probabilities, the page's with what it
was told before the others came; every refusal with the status that its fault has. Memory, threads and open files of
the server are sampled from /proc, and what of the memory is in use from its allocator (`soak_server.py`); at the end it
gets SIGTERM under load.
"""

import argparse
import http.client
import io
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch
from PIL import Image

import quasinat as qn
from quasinat.data.photographs import PHOTOGRAPHS, photograph
from quasinat.files import write_json
from quasinat.networks import save_classifier, vgg
from quasinat.serving.coder import Asked, Coder
from quasinat.serving.pictures import decode, encode
from sparse_coding import machine

SIZES = ((32, 32), (48, 40), (64, 64), (96, 96))  # height, width
KINDS = (
    {"format": "PNG"},
    {"format": "JPEG"},
    {"format": "JPEG", "progressive": True},
    {"format": "WebP"},
    {"format": "BMP"},
)
CLIENTS, QUEUE, CLASSES = 40, 16, 10
BODY_TIMEOUT, MAX_BYTES = 2.0, 2**18
PAUSE = 0.05  # seconds, at most twice that, after a refusal
EVERY = 2.0  # seconds between two samples of the server
SETTLING = 0.2  # of the run, whose samples the slope leaves out
VISITS = ("none", "random-noise", "fgsm", "pgd")  # attacks that a visitor of the page asks for
VISIT_PAUSE = 1.0  # seconds
LEAK = 0.25  # MiB a minute of memory in use; batches that come and go make less of a slope in ten minutes
MEBI = 2**20


def made_files(folder: Path) -> list[str]:
    """A layer and two networks; the arguments of `quasinat serve` that name them."""
    data = qn.data.photographs(train_per_class=40, test_per_class=2, colour=True)
    strata = qn.fit_strata(data.train_images, count=4, epochs=2, seed=0)
    dictionaries = qn.learn_dictionaries(data.train_images, strata, filters=32, images_each=60)
    qn.SparseTransformationLayer(strata, dictionaries, sparsity=0.2).save(folder / "layer.stl")
    for seed, name in enumerate(("model", "plain")):
        save_classifier(folder / f"{name}.safetensors", vgg("vgg-small", classes=CLASSES, seed=seed), {})
    networks = ["--model", str(folder / "model.safetensors"), "--plain-model", str(folder / "plain.safetensors")]
    return [str(folder / "layer.stl"), *networks]


def right_answers(folder: Path) -> list[tuple[bytes, bytes, dict[str, Any]]]:
    """Image files; of each the PNG file of its projection, and its classification, both made alone."""
    networks = (qn.networks.load_classifier(folder / f"{name}.safetensors") for name in ("model", "plain"))
    coder = Coder(qn.SparseTransformationLayer.load(folder / "layer.stl"), *networks)
    made = []
    for number, (height, width) in enumerate(size for size in SIZES for _ in range(2 * len(KINDS))):
        whole = (255 * photograph(PHOTOGRAPHS[number % 10], colour=True)).byte()
        top, left = 13 * number % (whole.shape[1] - height), 29 * number % (whole.shape[2] - width)
        crop = whole[:, top : top + height, left : left + width].permute(1, 2, 0).contiguous()
        file = io.BytesIO()
        Image.fromarray(crop.numpy()).save(file, **KINDS[number % len(KINDS)])
        image = decode(file.getvalue(), 3, max_pixels=2**20, least_side=8)
        (outcome,) = coder.code([Asked(image, True)])
        assert outcome.before is not None
        assert outcome.after is not None
        answer = {
            "before": outcome.before.sort(descending=True).values[:5].tolist(),
            "after": outcome.after.sort(descending=True).values[:5].tolist(),
            "disagreement": outcome.disagreement,
            "stratum": outcome.stratum,
        }
        made.append((file.getvalue(), encode(outcome.projected), answer))
    return made


class Run:
    """What all clients share."""

    def __init__(self, port: int, images: list[tuple[bytes, bytes, dict[str, Any]]]) -> None:
        self.port, self.images = port, images
        self.over, self.stopping = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.latencies: dict[str, list[float]] = {"project": [], "classify": []}
        self.faults: dict[str, Counter[str]] = {}
        self.visits: Counter[str] = Counter()
        self.wrong: list[str] = []

    def right(self, path: str, number: int, body: bytes) -> bool:
        """Whether the answer to an image is the one made alone."""
        _, png, expected = self.images[number]
        if path == "project":
            return body == png
        found = json.loads(body)
        for side in ("before", "after"):
            found[side] = [likely["probability"] for likely in found[side]["top"]]
        return bool(found == expected)


def client(run: Run, seed: int) -> None:
    """Sends good images over one connection until the end, as fast as they are answered."""
    draw = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=60)
    while not run.over.is_set():
        number, path = draw.randrange(len(run.images)), draw.choice(("project", "project", "classify"))
        began = time.perf_counter()
        try:
            connection.request("POST", f"/v1/{path}", run.images[number][0])
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if run.stopping.is_set():
                break
            with run.lock:
                run.wrong.append(f"connection of a good client: {error!r}")
            continue
        took = time.perf_counter() - began
        right = answer.status != 200 or run.right(path, number, body)
        with run.lock:
            run.statuses[str(answer.status)] += 1
            if answer.status == 200:
                run.latencies[path].append(took)
            if not right or answer.status not in (200, 429):
                run.wrong.append(f"{path} of image {number}: {answer.status} {body[:200]!r}")
        if answer.status == 429:
            time.sleep(PAUSE * (1 + draw.random()))
    connection.close()


def visited(port: int, image: bytes, attack: str) -> tuple[int, bytes]:
    """Status and body of what the page asks for when an image is attacked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", f"/v1/demo?attack={attack}", image)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def visitor(run: Run, pages: dict[str, bytes]) -> None:
    """Attacks an image on the page, one way after another, until the end.

    Args:
        pages: the right answers by the attack.
    """
    while not run.over.wait(VISIT_PAUSE) and not run.stopping.is_set():
        attack = VISITS[sum(run.visits.values()) % len(VISITS)]
        try:
            status, body = visited(run.port, run.images[0][0], attack)
        except (OSError, http.client.HTTPException) as error:
            status, body = 0, repr(error).encode()
        if run.stopping.is_set():
            return
        run.visits[str(status)] += 1
        if status not in (200, 429) or (status == 200 and body != pages[attack]):
            with run.lock:
                run.wrong.append(f"demo of {attack}: {status} {body[:200]!r}")


def exchange(run: Run, head: bytes, body: bytes, *, cut: bool = False) -> str:
    """Sends bytes over a connection of its own; the status of the answer, "closed" where there is none.

    Args:
        cut: close at once instead of waiting for an answer.
    """
    with socket.create_connection(("127.0.0.1", run.port), timeout=60) as connection:
        try:
            connection.sendall(head + body)
            if cut:
                return "closed"
            answer = connection.recv(2**16)
        except ConnectionError:
            return "closed"
    return answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"


def head(length: int | str, path: str = "/v1/project") -> bytes:
    """Of a request with a body of so many bytes, or "chunked"."""
    how = "Transfer-Encoding: chunked" if length == "chunked" else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{how}\r\nConnection: close\r\n\r\n".encode()


def bomb() -> bytes:
    """A PNG of two colours, 12000 pixels a side in some kilobytes."""
    file = io.BytesIO()
    Image.new("1", (12000, 12000)).save(file, "PNG")
    return file.getvalue()


def faults(image: bytes) -> dict[str, tuple[Callable[[Run], str], set[str]]]:
    """What misbehaving clients do, and the answers that they may get; busy is one of them for all that need a place."""
    huge, large, noise = bomb(), bytes(MAX_BYTES + 1), random.Random(0).randbytes(500)
    chunk = f"{2**16:x}\r\n".encode() + bytes(2**16) + b"\r\n"
    half = image[: len(image) // 2]
    return {
        "garbage": (lambda run: exchange(run, head(len(noise)), noise), {"422", "429"}),
        "empty": (lambda run: exchange(run, head(0), b""), {"422", "429"}),
        "cut-off image": (lambda run: exchange(run, head(len(half)), half), {"422", "429"}),
        "bomb": (lambda run: exchange(run, head(len(huge)), huge), {"422", "429"}),
        "too large": (lambda run: exchange(run, head(len(large)), large), {"413", "429"}),
        "too large, chunked": (lambda run: exchange(run, head("chunked"), 8 * chunk), {"413", "429"}),
        "slow body": (lambda run: exchange(run, head(len(image)), half), {"408", "429"}),
        "slow head": (lambda run: exchange(run, b"POST /v1/pro", b""), {"closed"}),
        "cut while sending": (lambda run: exchange(run, head(len(image)), half, cut=True), {"closed"}),
        "cut while waiting": (lambda run: exchange(run, head(len(image)), image, cut=True), {"closed"}),
        "no HTTP": (lambda run: exchange(run, b"\x16\x03\x01\x00 hello\r\n\r\n", b""), {"400"}),
        "no such path": (lambda run: exchange(run, head(len(image), "/../etc/passwd"), image), {"404", "429"}),
    }


def misbehave(run: Run, name: str, act: Callable[[Run], str], allowed: set[str]) -> None:
    """One fault, again and again."""
    counts = run.faults.setdefault(name, Counter())
    while not run.over.is_set() and not run.stopping.is_set():
        try:
            found = act(run)
        except OSError as error:
            found = repr(error)
        if run.stopping.is_set():
            return
        counts[found] += 1
        if found not in allowed:
            with run.lock:
                run.wrong.append(f"{name}: {found}")
        time.sleep(0.1)


def sample(process: int) -> tuple[int, int, int]:
    """Bytes of memory, threads and open files of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return (
        1024 * int(fields["VmRSS"].split()[0]),
        int(fields["Threads"]),
        len(list(Path(f"/proc/{process}/fd").iterdir())),
    )


def metrics(port: int) -> dict[str, float]:
    """What /metrics says, without labels summed up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#") and "{" not in line]
    return {name: float(value) for name, value in lines}


def quantiles(values: list[float]) -> dict[str, float]:
    """Milliseconds that half, and 99 in a hundred, took at most."""
    ordered = sorted(values)
    return {
        name: round(1000 * ordered[int(share * (len(ordered) - 1))], 2) for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def held(samples: list[tuple[float, int, int, int]]) -> dict[str, Any]:
    """Memory, threads and files at the start, at the end and at most; the slope of the memory once it has settled."""
    settled = [each for each in samples if each[0] >= SETTLING * samples[-1][0]]
    slope = statistics.linear_regression([each[0] for each in settled], [each[1] for each in settled]).slope
    found: dict[str, Any] = {"memory slope, MiB/min": round(60 * slope / MEBI, 4)}
    for place, (name, unit) in enumerate((("memory, MiB", MEBI), ("threads", 1), ("files", 1)), 1):
        values = [each[place] / unit for each in samples]
        found[name] = {"first": round(values[0], 1), "last": round(values[-1], 1), "most": round(max(values), 1)}
    return found | {"samples": [[round(when, 1), round(memory / MEBI, 1), *rest] for when, memory, *rest in samples]}


def in_use(lines: list[str], seconds: float) -> dict[str, Any]:
    """What the server's allocator said under load of memory in use, memory that is free and kept, and blocks."""
    said = [[float(number) for number in line.split()] for line in lines]
    loaded = [each for each in said if each[0] <= seconds]
    settled = [each for each in loaded if each[0] >= SETTLING * seconds]
    found: dict[str, Any] = {}
    for name, place, unit in (("in use, MiB", 1, MEBI), ("free and kept, MiB", 2, MEBI), ("Python's blocks", 3, 1)):
        values = [each[place] / unit for each in settled]
        slope = 60 * statistics.linear_regression([each[0] for each in settled], values).slope
        found[name] = {"mean": round(statistics.mean(values), 1), "slope a minute": round(slope, 4)}
    return found


def soak(minutes: float) -> dict[str, Any]:
    """The whole run."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        arguments = made_files(folder)
        images = right_answers(folder)
        limits = ["--queue", str(QUEUE), "--body-timeout", str(BODY_TIMEOUT), "--max-bytes", str(MAX_BYTES)]
        start = [sys.executable, str(Path(__file__).with_name("soak_server.py")), str(folder / "allocator")]
        command = [*start, "serve", *arguments, "--port", "0", *limits, "--device", "cpu"]
        log = (folder / "log").open("w+")
        with log, subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL) as process:
            try:
                port = listening(folder / "log", process)
                found = under_load(process, port, images, minutes)
                found["server"] |= in_use((folder / "allocator").read_text().splitlines(), 60 * minutes)
                return found | {"log": summary(folder / "log")}
            finally:
                process.kill()


def listening(log: Path, process: subprocess.Popen[bytes]) -> int:
    """The port, once it answers."""
    while process.poll() is None:
        line = next(iter(log.read_text().splitlines()), "")
        if line.startswith("quasinat: serving"):
            port = int(line.rsplit(":", 1)[1])
            metrics(port)
            return port
        time.sleep(0.1)
    raise SystemExit(log.read_text())


def summary(log: Path) -> dict[str, int]:
    """Lines of the server's log by their level; a traceback is one that should not be."""
    levels = ("INFO", "WARNING", "ERROR", "Traceback")
    starts = [line.split(":")[0].split(" ")[0] for line in log.read_text().splitlines()]
    return dict(Counter(start for start in starts if start in levels))


def under_load(
    process: subprocess.Popen[bytes], port: int, images: list[tuple[bytes, bytes, dict[str, Any]]], minutes: float
) -> dict[str, Any]:
    """Starts the clients, samples the server, and stops it while they still ask."""
    run = Run(port, images)
    pages = {attack: visited(port, images[0][0], attack)[1] for attack in VISITS}
    threads = [threading.Thread(target=client, args=(run, seed)) for seed in range(CLIENTS)]
    threads.append(threading.Thread(target=visitor, args=(run, pages)))
    for name, (act, allowed) in faults(images[0][0]).items():
        threads.append(threading.Thread(target=misbehave, args=(run, name, act, allowed)))
    began, samples = time.perf_counter(), []
    for thread in threads:
        thread.start()
    while (passed := time.perf_counter() - began) < 60 * minutes and process.poll() is None:
        samples.append((passed, *sample(process.pid)))
        time.sleep(EVERY)
    seconds = time.perf_counter() - began
    counted = metrics(port)
    good = sum(map(len, run.latencies.values()))
    run.stopping.set()
    stop = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    status = process.wait(timeout=120)
    stopped = time.perf_counter() - stop
    run.over.set()
    for thread in threads:
        thread.join(60)
    return {
        "minutes": round(seconds / 60, 2),
        "machine": machine(),
        "clients": {"good": CLIENTS, "queue": QUEUE, "sizes": SIZES, "files": [each["format"] for each in KINDS]},
        "good answers": good,
        "images per second": round(good / seconds, 1),
        "images per batch": round(counted["quasinat_batch_images_sum"] / counted["quasinat_batch_images_count"], 2),
        "milliseconds": {path: quantiles(values) for path, values in run.latencies.items()},
        "statuses of good clients": dict(sorted(run.statuses.items())),
        "statuses of the page's visitor": dict(sorted(run.visits.items())),
        "faults": {name: dict(sorted(counts.items())) for name, counts in run.faults.items()},
        "wrong answers": len(run.wrong),
        "examples of wrong answers": run.wrong[:10],
        "server": held(samples),
        "stop": {"exit status": status, "seconds": round(stopped, 2)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("results/reliability/soak.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = soak(given.minutes)
    write_json(given.out, found)
    server = found["server"]
    print(
        f"{found['minutes']} min, {found['good answers']} good answers ({found['images per second']}/s), "
        f"{found['wrong answers']} wrong, project p50/p99 {found['milliseconds']['project']} ms, "
        f"memory {server['memory, MiB']} slope {server['memory slope, MiB/min']} MiB/min, "
        f"in use {server['in use, MiB']}, "
        f"exit status {found['stop']['exit status']}"
    )
    leaks = server["in use, MiB"]["slope a minute"] > LEAK
    sys.exit(bool(found["wrong answers"] or found["stop"]["exit status"] or leaks))


if __name__ == "__main__":
    main()
