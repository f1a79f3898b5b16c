"""The measured part of `docs/tutorial.md`, a pure function of the result file of its own commands.

python benchmarks/tutorial_page.py      puts it into the page
"""

import json
from pathlib import Path
from typing import Any

from quasinat.report.white_box_sheet import white_box_markdown
from table import update


def sections(root: Path) -> dict[str, str]:
    """The sections of the page out of the result file below `root`."""
    result: dict[str, Any] = json.loads((root / "results" / "tutorial" / "white-box.json").read_text())
    table, _, _ = white_box_markdown(result).partition("\n\n\n")
    note = f"Accuracy of {result['data']['n']} test images in percent, with its 95 % Wilson interval."
    return {"table": f"{table}\n\n{note}"}


if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[1]
    PAGE = ROOT / "docs" / "tutorial.md"
    PAGE.write_text(update(PAGE.read_text(encoding="utf-8"), sections(ROOT)), encoding="utf-8")
