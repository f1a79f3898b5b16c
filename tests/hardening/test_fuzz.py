"""A short run of the fuzzing, and proof that it would see a crash, a hang, a warning, or too much memory."""

import ctypes
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pages import page_module
from quasinat.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CASES = 1000  # of all readers together; `make fuzz` runs 100,000

fuzz = page_module("fuzz")
FLAWS: dict[str, Callable[[bytes, Path], object]] = {}


def flaw(read: Callable[[bytes, Path], object]) -> Callable[[bytes, Path], object]:
    FLAWS[read.__name__] = read
    return read


@flaw
def raises(content: bytes, folder: Path) -> object:
    return [][1]


@flaw
def crashes(content: bytes, folder: Path) -> object:
    return ctypes.string_at(0)


@flaw
def hangs(content: bytes, folder: Path) -> object:
    while True:
        pass


@flaw
def waits(content: bytes, folder: Path) -> object:
    time.sleep(60)
    return None


@flaw
def warns(content: bytes, folder: Path) -> object:
    warnings.warn("odd", stacklevel=1)
    return None


@flaw
def takes_memory(content: bytes, folder: Path) -> object:
    return len(b"x" * 2**26)


@flaw
def refuses_without_a_remedy(content: bytes, folder: Path) -> object:
    raise InputError("it is bad", " ")


@flaw
def leaves(content: bytes, folder: Path) -> object:
    raise SystemExit(0)


KINDS = {
    "raises": "IndexError in test_fuzz.py",
    "crashes": "crash: exit status -11",
    "hangs": "hang",
    "waits": "hang",
    "warns": "warning: odd",
    "takes_memory": "memory",
    "refuses_without_a_remedy": "refusal without a remedy",
    "leaves": "SystemExit in test_fuzz.py",
}


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short limits, and readers with known flaws."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.5)
    monkeypatch.setattr(fuzz, "MEMORY", 2**25)
    for name, read in FLAWS.items():
        monkeypatch.setitem(fuzz.READERS, name, fuzz.Reader(lambda: [b"seed"], read))


@pytest.mark.parametrize("name", KINDS)
def test_a_flaw_is_found_and_the_cases_after_it_are_run(
    name: str, strict: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "waits":  # the one that uses no processor; the others may be slow by the clock of a busy machine
        monkeypatch.setattr(fuzz, "PATIENCE", 2.5)
    count = 2 if name in ("hangs", "waits") else 5
    found = list(fuzz.run(name, count, seed=0))
    assert [verdict.case for verdict in found] == list(range(count))
    assert {verdict.outcome for verdict in found} == {"finding"}
    assert [verdict for verdict in found if not verdict.kind.startswith(KINDS[name])] == []


def test_several_lines_and_control_characters_are_findings() -> None:
    for line in ("one\ntwo", "a\x1b[2Jb"):
        error = InputError("problem", "remedy")
        error.args = (line,)
        assert fuzz._refusal(error)[0].startswith("refusal of several lines")
    assert fuzz._refusal(InputError("problem", "remedy")) == ("", "")


def test_a_case_is_the_same_each_time() -> None:
    for name in ("webdataset tar", "layer", "png", "options"):
        reader = fuzz.READERS[name]
        twice = [[fuzz.case_of(reader, name, case, 3, fuzz._seeds(reader)) for case in range(4)] for _ in range(2)]
        assert twice[0] == twice[1]
        assert len(set(twice[0])) == 4


@pytest.mark.parametrize("name", list(fuzz.READERS))
def test_whole_inputs_are_read(name: str, tmp_path: Path) -> None:
    """Otherwise the damaged ones would be refused for another reason than their damage."""
    reader = fuzz.READERS[name]
    outcomes = [fuzz.judged(name, 0, seed, tmp_path) for seed in fuzz._seeds(reader)]
    assert [verdict.detail for verdict in outcomes if verdict.outcome == "finding"] == []
    assert "read" in {verdict.outcome for verdict in outcomes}


@pytest.mark.parametrize("name", list(fuzz.READERS))
def test_damaged_input_is_read_or_refused_in_one_line(name: str) -> None:
    count = fuzz.shares(CASES, list(fuzz.READERS))[name]
    found = list(fuzz.run(name, count, seed=2026))
    assert [(verdict.case, verdict.kind, verdict.detail) for verdict in found if verdict.outcome == "finding"] == []
    assert len(found) == count


def test_the_committed_run_has_a_hundred_thousand_cases_among_all_readers_and_no_finding() -> None:
    result = json.loads((ROOT / "results/reliability/fuzz.json").read_text(encoding="utf-8"))
    assert result["cases"] >= 100_000
    assert result["findings"] == 0
    assert set(result["readers"]) == set(fuzz.READERS) - set(FLAWS)
    assert result["cases"] == sum(reader["cases"] for reader in result["readers"].values())
    assert result["most memory, MB"] < result["limits"]["MB"]
    assert result["slowest, s"] < result["limits"]["seconds"]
