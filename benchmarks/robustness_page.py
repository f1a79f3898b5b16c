"""The measured parts of `docs/robustness.md`, each a pure function of a result file.

python benchmarks/robustness_page.py      puts them into the page
"""

import json
from pathlib import Path
from typing import Any

from attacks import goals
from quasinat.report.certified_curve import certified_markdown
from quasinat.report.white_box_sheet import white_box_markdown
from table import update


def machine_line(results: dict[str, Any]) -> str:
    """Where the attacks were timed, and with which versions."""
    made = results["machine"]
    peers = ", ".join(f"{name} {made[name]}" for name in ("foolbox", "adversarial-robustness-toolbox", "torchattacks"))
    return f"{made['processor']}, {made['threads']} thread(s), torch {made['torch']}; {peers}."


def sections(root: Path) -> dict[str, str]:
    """The sections of the page out of the result files below `root`."""

    def read(name: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((root / "results" / name).read_text())
        return values

    speed = read("performance/attacks.json")
    return {
        "white-box": white_box_markdown(read("white-box/white-box.json")),
        "certified": certified_markdown(read("certify/certify.json")).partition("\n\n")[2],
        "speed": f"{goals(speed)}\n{machine_line(speed)}",
    }


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    page = here / "docs" / "robustness.md"
    page.write_text(update(page.read_text(), sections(here)))
