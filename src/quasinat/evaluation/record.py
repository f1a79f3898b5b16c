"""What every result file holds beside its numbers: where they came from."""

import hashlib
import platform
import sys
from functools import cache
from pathlib import Path

import torch

SOURCES = ("*.py", "*.cpp", "*.toml")


@cache
def code_fingerprint() -> str:
    """A SHA-256 over the package's own source files, the tables' too: two runs agree only if all were the same."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(path for kind in SOURCES for path in root.rglob(kind)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def provenance() -> dict[str, str | int]:
    """Versions, processor and the code's fingerprint, for a result file."""
    from importlib.metadata import version

    return {
        "quasinat": version("quasinat"),
        "code": code_fingerprint(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
