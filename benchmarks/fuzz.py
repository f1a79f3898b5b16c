"""Damaged input for every reader: each has to read it or to refuse it in one line, in time and within its memory.

    python benchmarks/fuzz.py --cases 100000 --out results/reliability/fuzz.json
    python benchmarks/fuzz.py --reader png --case 17       one case again, with its traceback
    python benchmarks/fuzz.py --atheris png                guided by coverage, where atheris is installed

A case is decided by the seed, the reader's name and the case's number alone. Cases run in worker processes whose
address space is limited; the parent notes what a worker was at when it died or took too long, and starts another. A
finding is an exception that is no `QuasinatError`, a refusal of several lines or without a remedy, a warning, a crash,
a hang, or more memory than the limit.
"""

import argparse
import faulthandler
import gc
import mmap
import multiprocessing
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from fuzz_readers import READERS, Reader
from quasinat.errors import QuasinatError
from quasinat.files import read_json, write_json

SECONDS = 10.0  # of a processor for one case
PATIENCE = 120.0  # seconds by the clock, on a machine that is busy with other things
MEMORY = 2**30  # bytes that a case may take beside what the process holds
SPACE = 2**32  # of address space beside it: what is reserved and not touched counts here
LINE = 4000  # characters of a refusal
CHUNK = 500  # cases of a worker
READ, REFUSED, FINDING = "read", "refused", "finding"
TOTALS = {"cases": "cases", "read": READ, "refused": REFUSED, "findings": FINDING}


@dataclass(frozen=True)
class Verdict:
    """What became of a case; `kind` of a finding groups those of one cause."""

    reader: str
    case: int
    outcome: str
    seconds: float
    memory: int
    kind: str = ""
    detail: str = ""


def case_of(reader: Reader, name: str, case: int, seed: int, seeds: list[bytes]) -> bytes:
    """The damaged input of a case."""
    random = Random(f"{seed}/{name}/{case}")
    return reader.mutate(random.choice(seeds), random, seeds)


def judged(name: str, case: int, content: bytes, folder: Path) -> Verdict:
    """Reads one input in this process, and judges what came of it."""
    rest = _resident()
    _forget_peak()
    began = time.perf_counter()
    outcome, kind, detail = READ, "", ""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            READERS[name].read(content, folder)
        except QuasinatError as error:
            outcome, (kind, detail) = REFUSED, _refusal(error)
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
            detail = "".join(traceback.format_exception(error))[-1500:]
        if said := [str(note.message) for note in heard]:
            kind, detail = f"warning: {said[0][:60]}", said[0][:500]
    seconds = time.perf_counter() - began
    memory = max(0, _peak() - rest)
    if memory > MEMORY:
        kind = "memory"
    return Verdict(name, case, FINDING if kind else outcome, seconds, memory, kind, detail)


def _refusal(error: QuasinatError) -> tuple[str, str]:
    """What is wrong with a refusal, if anything."""
    line = str(error)
    if not line.isprintable():
        return f"refusal of several lines or with control characters: {line[:40]!r}", line[:500]
    if not (error.problem.strip() and error.remedy.strip()):
        return "refusal without a remedy", line[:500]
    return ("refusal too long", line[:500]) if len(line) > LINE else ("", "")


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    """Bytes that the process holds (`VmRSS`), or held at most since `_forget_peak` (`VmHWM`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    return 0


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _work(name: str, cases: range, seed: int, shared: mmap.mmap, out: Any) -> None:
    """A worker: says in `shared` which case it is at and since when, and sends the verdicts."""
    import torch

    torch.set_num_threads(1)  # the threads that the parent had are gone in its fork, which would wait for them
    faulthandler.disable()  # where the tests have it on: a crash is told by the parent
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    os.dup2(sys.stderr.fileno(), 2)
    reader = READERS[name]
    seeds = _seeds(reader)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + SPACE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    gc.disable()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in cases:
            shared[:24] = struct.pack("<qdd", case, time.monotonic(), time.process_time())
            out.send(judged(name, case, case_of(reader, name, case, seed, seeds), folder))
            if case % 50 == 0:
                gc.collect()
        shared[:8] = struct.pack("<q", -1)


def _seeds(reader: Reader) -> list[bytes]:
    """The same whole inputs every time."""
    import torch

    torch.manual_seed(0)
    return list(reader.seeds())


def _processor(worker: int) -> float:
    """Seconds of a processor that a process has taken so far."""
    fields = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(name: str, count: int, seed: int) -> Iterator[Verdict]:
    """The verdicts on `count` cases of a reader, in worker processes one after another."""
    context = multiprocessing.get_context("fork")
    start = 0
    while start < count:
        cases = range(start, min(count, start + CHUNK))
        shared = mmap.mmap(-1, 24)
        shared[:24] = struct.pack("<qdd", start, time.monotonic() + 60, 60.0)  # the seeds have a minute
        incoming, outgoing = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(name, cases, seed, shared, outgoing))
        worker.start()
        outgoing.close()
        seen, hung = start, False
        while True:
            try:
                if incoming.poll(0.5):
                    verdict = incoming.recv()
                    seen = verdict.case + 1
                    yield verdict
                    continue
            except EOFError:
                break
            at, since, taken = struct.unpack("<qdd", shared[:24])
            late = time.monotonic() - since > PATIENCE
            if at >= 0 and (late or _processor(worker.pid or 0) - taken > SECONDS):
                hung = True
                os.kill(worker.pid or 0, signal.SIGKILL)
                break
        worker.join()
        incoming.close()
        if seen < cases.stop:
            at, since, taken = struct.unpack("<qdd", shared[:24])
            why = "hang" if hung else f"crash: exit status {worker.exitcode}"
            yield Verdict(name, seen, FINDING, time.monotonic() - since, 0, why)
            seen += 1
        shared.close()
        start = seen


def shares(total: int, names: list[str]) -> dict[str, int]:
    """How many of `total` cases each reader gets, by its weight, rounded up."""
    whole = sum(READERS[name].weight for name in names)
    return {name: -int(-total * READERS[name].weight // whole) for name in names}


def summary(
    verdicts: list[Verdict], seed: int, seconds: float, earlier: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The result file.

    Args:
        earlier: an earlier one of the same seed, whose other readers are kept; each names the code that it is of.
    """
    from importlib.metadata import version

    from quasinat.evaluation.record import code_fingerprint, provenance

    readers, findings = {}, {}
    if earlier is not None and earlier["seed"] == seed:
        code, seconds = earlier["provenance"]["code"], seconds + earlier["seconds"]
        readers = {name: {"code": code, **entry} for name, entry in earlier["readers"].items()}
        findings = {found["kind"]: found for found in earlier["kinds of finding"]}
    for name in dict.fromkeys(verdict.reader for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.reader == name]
        readers[name] = {
            "code": code_fingerprint(),
            "cases": len(own),
            **{outcome: sum(verdict.outcome == outcome for verdict in own) for outcome in (READ, REFUSED, FINDING)},
            "slowest, s": round(max(verdict.seconds for verdict in own), 3),
            "most memory, MB": round(max(verdict.memory for verdict in own) / 1e6, 1),
        }
        findings = {kind: found for kind, found in findings.items() if found["reader"] != name}
        findings |= {verdict.kind: asdict(verdict) for verdict in reversed(own) if verdict.outcome == FINDING}
    every = readers.values()
    packages = ("pillow", "safetensors", "numpy", "pyarrow")
    return {
        **{name: sum(entry[key] for entry in every) for name, key in TOTALS.items()},
        "kinds of finding": list(findings.values()),
        "slowest, s": max(entry["slowest, s"] for entry in every),
        "most memory, MB": max(entry["most memory, MB"] for entry in every),
        "limits": {
            "seconds of a processor": SECONDS,
            "seconds": PATIENCE,
            "MB": MEMORY / 1e6,
            "MB of address space": SPACE / 1e6,
            "characters": LINE,
        },
        "seed": seed,
        "seconds": round(seconds, 1),
        "readers": {name: readers[name] for name in READERS if name in readers},
        "provenance": {**provenance(), **{name: version(name) for name in packages}},
    }


def told(verdicts: list[Verdict], seconds: float) -> str:
    """One reader's verdicts for the screen: its counts, and each kind of finding with its first case."""
    read = sum(verdict.outcome == READ for verdict in verdicts)
    kinds: dict[str, list[int]] = {}
    for verdict in verdicts:
        if verdict.outcome == FINDING:
            kinds.setdefault(verdict.kind, []).append(verdict.case)
    found = [f"  {kind}: {len(cases)}, first {cases[0]}" for kind, cases in kinds.items()]
    return "\n".join([f"{verdicts[0].reader}: {len(verdicts)} cases, {read} read, {seconds:.0f} s", *found])


def guided(name: str, arguments: list[str]) -> None:
    """Cases that atheris finds by coverage; ends at the first finding."""
    import atheris

    folder = Path(tempfile.mkdtemp())
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(READERS[name].seeds()):
        (corpus / f"{number}").write_bytes(seed)
    work = folder / "work"
    work.mkdir()

    def one(data: bytes) -> None:
        verdict = judged(name, 0, data, work)
        if verdict.outcome == FINDING:
            raise RuntimeError(f"{verdict.kind}\n{verdict.detail}")

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    """The command; its exit status is 1 where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="readers at a time")
    parser.add_argument("--reader", action="append", choices=list(READERS), help="this one only; several times")
    parser.add_argument("--case", type=int, help="one case of one reader, in this process")
    parser.add_argument(
        "--atheris", choices=list(READERS), help="guided by coverage; further arguments are libFuzzer's"
    )
    parser.add_argument("--out", type=Path, help="the result file; with --reader, its other readers are kept")
    given, further = parser.parse_known_args()
    if given.atheris:
        guided(given.atheris, further)
    names = given.reader or list(READERS)
    if given.case is not None:
        reader = READERS[names[0]]
        content = case_of(reader, names[0], given.case, given.seed, _seeds(reader))
        with tempfile.TemporaryDirectory() as folder:
            print(content[:400], judged(names[0], given.case, content, Path(folder)), sep="\n")
        return 0
    began, verdicts = time.monotonic(), []
    parts = shares(given.cases, names).items()
    with ThreadPoolExecutor(given.jobs) as pool:
        for own in pool.map(lambda part: list(run(*part, given.seed)), parts):
            verdicts += own
            print(told(own, time.monotonic() - began), flush=True)
    earlier = read_json(given.out) if given.reader and given.out and given.out.is_file() else None
    result = summary(verdicts, given.seed, time.monotonic() - began, earlier)
    if given.out:
        write_json(given.out, result)
    print(f"{result['cases']} cases, {result['findings']} findings")
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
