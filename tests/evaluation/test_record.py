"""Provenance: the fingerprint is the source's, and a result says what made it."""

import hashlib
import json
from pathlib import Path

import quasinat
from quasinat.evaluation import code_fingerprint, peak_memory, provenance


def test_the_fingerprint_is_the_sources() -> None:
    root = Path(quasinat.__file__).parent
    digest = hashlib.sha256()
    sources = [path for path in root.rglob("*") if path.suffix in {".py", ".cpp", ".toml"}]
    assert root / "experiments" / "tables" / "rows.toml" in sources  # what a cell is, is written there
    for path in sorted(sources):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    code_fingerprint.cache_clear()
    assert code_fingerprint() == digest.hexdigest()
    assert code_fingerprint() == code_fingerprint()


def test_provenance_is_plain_json() -> None:
    record = provenance()
    assert json.loads(json.dumps(record)) == record
    assert record["code"] == code_fingerprint()
    assert record["quasinat"] == quasinat.__version__


def test_peak_memory_is_in_bytes() -> None:
    assert 50e6 < peak_memory() < 1e12
