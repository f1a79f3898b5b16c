"""`quasinat serve`, writing down what its allocator holds: for `soak.py`, which cannot see it from outside.

    python benchmarks/soak_server.py FILE serve LAYER ...

What a process occupies can grow while what it uses does not: glibc keeps freed memory between blocks that are in use.
A line of FILE has the seconds since the start, the bytes in use, the bytes that are free but kept, and Python's blocks.
"""

import ctypes
import sys
import threading
import time
from pathlib import Path

from quasinat.cli import run

EVERY = 2.0  # seconds


class Mallinfo2(ctypes.Structure):
    """What `mallinfo2` of glibc 2.33 and later returns: see its manual."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def watch(path: Path) -> None:
    """Writes a line now and then, until the process ends."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    began = time.perf_counter()
    with path.open("w") as file:
        while True:
            held = mallinfo2()
            used, free = held.uordblks + held.hblkhd, held.fordblks
            print(round(time.perf_counter() - began, 1), used, free, sys.getallocatedblocks(), file=file, flush=True)
            time.sleep(EVERY)


if __name__ == "__main__":
    threading.Thread(target=watch, args=(Path(sys.argv[1]),), daemon=True).start()
    sys.exit(run(sys.argv[2:]))
