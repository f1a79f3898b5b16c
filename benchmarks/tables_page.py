"""The measured parts of `docs/tables.md`, each a pure function of a result file.

python benchmarks/tables_page.py      puts them into the page
"""

import json
from pathlib import Path
from typing import Any

from defences_goals import costs, goals
from quasinat.experiments.table_spec import known_rows
from quasinat.report.table_sheet import table_markdown
from robustness_page import machine_line
from table import update

TABLES = ("table1", "table2a", "table2b", "table4", "table5", "table6a", "table6b", "table8a", "table8b")
PRESET = "smoke"
LAYERS, CONTROL, UNDEFENDED = ("stl", "stl-cluster"), "control", "none"


def under_attack(result: dict[str, Any]) -> dict[str, float]:
    """The mean accuracy over a table's attacks, of each row that has them all."""
    attacks = [column for column in result["columns"] if column != "clean"]
    whole = [row for row in result["rows"] if all(row["cells"][column]["status"] == "done" for column in attacks)]
    return {row["key"]: sum(row["cells"][column]["value"] for column in attacks) / len(attacks) for row in whole}


def standing(result: dict[str, Any]) -> str:
    """One sentence: who is first, where the layers are, and what no defence gets."""
    means, labels = under_attack(result), {row["key"]: row["label"] for row in result["rows"]}
    detectors = {row["key"] for row in result["rows"] if any("flagged" in cell for cell in row["cells"].values())}
    ranked = sorted((key for key in means if key not in detectors), key=lambda key: -means[key])

    def said(key: str) -> str:
        return f"{labels[key]} {100 * means[key]:.1f} %"

    first = ", ".join(said(key) for key in ranked[:3])
    layers = ", ".join(f"{said(key)} (place {ranked.index(key) + 1})" for key in LAYERS if key in means)
    without = " and ".join(said(key) for key in (UNDEFENDED, CONTROL) if key in means)
    if CONTROL in means:
        transformations = [key for key in ranked if known_rows()[key].defence]
        above = sum(means[key] > means[CONTROL] for key in transformations)
        without += f", which {above} of {len(transformations)} input transformations exceed"
    name = f"**{result['title']}** ({result['data']['name']}, {len(ranked)} rows)"
    return f"{name}: first are {first}; {layers}; {without}."


def in_short(results: dict[str, dict[str, Any]]) -> str:
    """A sentence for each table, by the mean over its attacks."""
    return "".join(f"- {standing(result)}\n" for result in results.values())


def sections(root: Path) -> dict[str, str]:
    """The sections of the page out of the result files below `root`."""

    def read(name: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((root / "results" / name).read_text())
        return values

    results = {name: read(f"tables/{name}-{PRESET}.json") for name in TABLES}
    speed = read("performance/defences.json")
    parts = {"in short": in_short(results)}
    parts |= {name: table_markdown(result).partition("\n\n")[2] for name, result in results.items()}
    return parts | {"speed": f"{goals(speed)}\n\n{costs(speed)}\n\n{machine_line(speed)}"}


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    page = here / "docs" / "tables.md"
    page.write_text(update(page.read_text(), sections(here)))
