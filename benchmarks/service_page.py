"""The measured part of docs/service.md, from what `soak.py` wrote.

python benchmarks/service_page.py
"""

import json
from pathlib import Path
from typing import Any

from table import update

ROOT = Path(__file__).resolve().parents[1]
FILE = Path("results") / "reliability" / "soak.json"


def sections(root: Path) -> dict[str, str]:
    """The text of each marked part of the page."""
    return {"soak": soak(json.loads((root / FILE).read_text(encoding="utf-8")))}


def soak(found: dict[str, Any]) -> str:
    """One run as a table."""
    server, statuses, visits = (
        found["server"],
        found["statuses of good clients"],
        found["statuses of the page's visitor"],
    )
    faults = sum(sum(counts.values()) for counts in found["faults"].values())
    rows = {
        "minutes": found["minutes"],
        "wrong answers": found["wrong answers"],
        "right answers": f"{found['good answers']:,}, {found['images per second']} a second",
        "images coded together, in the mean": found["images per batch"],
        "told to come again (429)": f"{statuses.get('429', 0):,}",
        "requests with a fault": f"{faults:,} of {len(found['faults'])} kinds",
        "attacks by a visitor of the page": f"{visits.get('200', 0):,}",
    }
    for path, took in found["milliseconds"].items():
        rows[f"{path}, median and 99th percentile"] = f"{took['p50']:.0f} ms, {took['p99']:.0f} ms"
    for name in ("memory, MiB", "threads", "files"):
        held = server[name]
        rows[f"{name}: first, last, most"] = f"{held['first']:g}, {held['last']:g}, {held['most']:g}"
    rows["memory, slope"] = f"{server['memory slope, MiB/min']:+.3f} MiB a minute"
    used, kept = server["in use, MiB"], server["free and kept, MiB"]
    rows["of it in use: mean, slope"] = f"{used['mean']:g} MiB, {used['slope a minute']:+.3f} MiB a minute"
    rows["of it free, kept by the allocator: mean, slope"] = (
        f"{kept['mean']:g} MiB, {kept['slope a minute']:+.3f} MiB a minute"
    )
    rows["SIGTERM under load"] = f"status {found['stop']['exit status']} after {found['stop']['seconds']} s"
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    clients = found["clients"]
    sizes = ", ".join(f"{height} x {width}" for height, width in clients["sizes"])
    told = f"{clients['good']} clients that ask again at once, a queue of {clients['queue']}, images of {sizes} pixels."
    here = found["machine"]
    where = f"{here['processor']}, {here['cores']} cores, one the server's; torch {here['torch']}; {here['date']}."
    return "\n".join([*lines, "", f"{told} {where}"])


def main() -> None:
    """Brings the page up to date."""
    page = ROOT / "docs" / "service.md"
    page.write_text(update(page.read_text(encoding="utf-8"), sections(ROOT)), encoding="utf-8")


if __name__ == "__main__":
    main()
