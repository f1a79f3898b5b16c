"""The measured parts of `docs/results.md`, each a pure function of a result file.

python benchmarks/results_page.py      puts them into the page
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quasinat.report.table_content import matched_columns
from quasinat.report.table_sheet import table_markdown
from table import update

TABLES = ("table1", "table5")
PRESET = "small"
LAYERS, CONTROL = ("stl", "stl-cluster"), "control"
NEAR = 0.03  # of the paper's


def finding(result: dict[str, Any], key: str, columns: Mapping[str, str], strength: str) -> str:
    """One sentence: in how many attacks' columns a layer's row is first, above the control, and near the paper's.

    Above and below are outside both 95 % intervals. `columns` are the cells' by the stated ones.
    """
    rows = {row["key"]: row for row in result["rows"] if row["cells"][next(iter(columns.values()))]["status"] == "done"}
    label, cells = rows[key]["label"], rows[key]["cells"]
    others = [
        row["cells"]
        for name, row in rows.items()
        if name not in LAYERS and not any("flagged" in c for c in row["cells"].values())
    ]
    said = []
    if CONTROL in rows:
        control = rows[CONTROL]["cells"]
        above = sum(cells[column]["low"] > control[column]["high"] for column in columns.values())
        below = sum(cells[column]["high"] < control[column]["low"] for column in columns.values())
        said.append(f"above a second undefended network in {above} and below it in {below}")
    first = sum(
        all(cells[column]["value"] >= other[column]["value"] for other in others if other[column]["status"] == "done")
        for column in columns.values()
    )
    said.append(f"ahead of every row that is no layer in {first}")
    printed = rows[key]["paper"]
    near = sum(cells[column]["value"] >= printed[stated] - NEAR for stated, column in columns.items())
    said.append(f"within 3 points of the paper's or better in {near}")
    return f"{label}, {strength}, of {len(columns)} attacks: {', '.join(said)}."


def findings(result: dict[str, Any]) -> str:
    """The sentences of both layers at both strengths, as a list in Markdown."""
    stated = {column: column for column in result["columns"] if column != "clean"}
    strengths = {"at the stated budgets": stated, "strength-matched": matched_columns(result)}
    return "\n".join(
        f"- {finding(result, key, columns, strength)}"
        for key in LAYERS
        for strength, columns in strengths.items()
        if columns
    )


def sections(root: Path) -> dict[str, str]:
    """The sections of the page out of the result files below `root`."""
    parts = {}
    for name in TABLES:
        result: dict[str, Any] = json.loads((root / "results" / "tables" / f"{name}-{PRESET}.json").read_text())
        parts[name] = f"{findings(result)}\n\n{table_markdown(result).partition(chr(10) * 2)[2]}"
    return parts


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    page = here / "docs" / "results.md"
    page.write_text(update(page.read_text(), sections(here)))
