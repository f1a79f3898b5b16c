"""The measured parts of `docs/results.md` and the drawings in `docs/figures`, each a pure function of a result file.

python benchmarks/results_page.py      puts them into the page
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quasinat.evaluation import paired_difference
from quasinat.experiments.table_spec import known_rows, table_names
from quasinat.files import write_text
from quasinat.report.figures import standalone
from quasinat.report.results_page import figures_of
from quasinat.report.table_content import cell_text, matched_columns
from quasinat.report.table_sheet import table_markdown
from table import update

PRESET = "small"
OTHERS = {"table1 of all images": "table1-medium", "table5 of all images": "table5-medium"}
ADDED = {"table1": ("table1-small", ("", "-seed-1", "-seed-2")), "table2a": ("table2a-small", ("",))}
ADDED |= {"table1 of all images": ("table1-medium", ("",)), "longer": ("longer-small", ("",))}
ADDED |= {"table5": ("table5-small", ("", "-seed-1", "-seed-2")), "table6a": ("table6a-small", ("",))}
ADDED |= {"table5 of all images": ("table5-medium", ("",))}
SEEDED, SEEDS = ("table1", "table5"), ("", "-seed-1", "-seed-2")
LAYERS, CONTROL = ("stl", "stl-cluster"), "control"
WITH_CONTROLS = [(layer, other) for layer in LAYERS for other in (CONTROL, f"{layer}-control")]
LONGER = "training-epochs-60"  # STL (cluster)'s network, as long as the row `control-60`
PAIRS = {"longer": [(LONGER, "stl-cluster"), ("control-60", CONTROL), (LONGER, "control-60")]}
PAIRS |= {name: [(layer, CONTROL) for layer in LAYERS] for name in ("table5", "table5 of all images", "table6a")}
WITH_OTHERS = [("stl-cluster", other) for other in ("magnet", "tvm", "quilting")]
PAIRS |= {
    name: PAIRS.get(name, WITH_CONTROLS) + WITH_OTHERS for name in ("table1 of all images", "table5 of all images")
}
EXCERPT = ("none", CONTROL, "stl", "stl-cluster", "stl-control", "stl-cluster-control", "tvm", "quilting")
NEAR = 0.03  # of the paper's


def finding(result: dict[str, Any], key: str, columns: Mapping[str, str], strength: str) -> str:
    """One sentence: in how many attacks' columns a layer's row is first, above the control, and near the paper's.

    Above and below are outside both 95 % intervals. `columns` are the cells' by the stated ones.
    """
    rows = {row["key"]: row for row in result["rows"] if row["cells"][next(iter(columns.values()))]["status"] == "done"}
    label, cells = rows[key]["label"], rows[key]["cells"]
    others = {
        name: row["cells"]
        for name, row in rows.items()
        if name not in LAYERS and not any("flagged" in c for c in row["cells"].values())
    }
    said = []
    if CONTROL in rows:
        control = rows[CONTROL]["cells"]
        above = sum(cells[column]["low"] > control[column]["high"] for column in columns.values())
        below = sum(cells[column]["high"] < control[column]["low"] for column in columns.values())
        said.append(f"above a second undefended network in {above} and below it in {below}")
    first = sum(
        all(
            cells[column]["value"] >= other[column]["value"]
            for other in others.values()
            if other[column]["status"] == "done"
        )
        for column in columns.values()
    )
    said.append(f"{compared(list(others))} in {first}")
    printed = rows[key]["paper"]
    if printed:
        near = sum(cells[column]["value"] >= printed[stated] - NEAR for stated, column in columns.items())
        said.append(f"within 3 points of the paper's or better in {near}")
    return f"{label}, {strength}, of {len(columns)} attacks: {', '.join(said)}."


def compared(others: Sequence[str]) -> str:
    """What a layer's row is ahead of: how many rows were run beside it, and whether a defence was among them.

    Args:
        others: the keys of the rows that it is compared with.
    """
    defences = sum(defends(name) for name in others)
    if defences == len(others):
        return f"ahead of each of the {len(others)} other rows that were run"
    bare = len(others) - defences
    undefended = "the one row without a defence" if bare == 1 else f"each of the {bare} rows without a defence"
    if not defences:
        return f"ahead of {undefended} (no other defence was run)"
    kinds = "a defence" if defences == 1 else "defences"
    return f"ahead of each of the {len(others)} other rows that were run ({defences} of them {kinds})"


def defends(key: str) -> bool:
    """Whether a row is a defence, and neither undefended nor a control; what is no table's row is taken for one."""
    row = known_rows().get(key)
    return row is None or row.defence is not None or (row.network is not None and not key.startswith(CONTROL))


def findings(result: dict[str, Any]) -> str:
    """The sentences of both layers at both strengths, as a list in Markdown; none where attacks differ by the row."""
    if result["threat"] == "white-box" or result["sweeps"]:
        return ""
    undefended = result["rows"][0]["cells"]  # an attack that was not run on it was run on none
    stated = {column: column for column in result["columns"] if column != "clean"}
    strengths = {
        name: {said: column for said, column in columns.items() if undefended[column]["status"] == "done"}
        for name, columns in {"at the stated budgets": stated, "strength-matched": matched_columns(result)}.items()
    }
    return "\n".join(
        f"- {finding(result, key, columns, strength)}"
        for key in LAYERS
        for strength, columns in strengths.items()
        if columns and any(row["key"] == key for row in result["rows"])
    )


def over_seeds(results: list[dict[str, Any]], columns: Mapping[str, str]) -> str:
    """The rows that every seed has filled: the mean accuracy over the seeds in per cent, and the lowest and highest.

    Args:
        results: of one table, a seed each.
        columns: of the cells, by their headings.
    """
    lines = ["| defence | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for rows in zip(*(result["rows"] for result in results), strict=True):
        cells = [[row["cells"][column] for row in rows] for column in columns.values()]
        if any(cell["status"] != "done" for each in cells for cell in each):
            continue
        values = [[100 * cell["value"] for cell in each] for each in cells]
        said = [f"{sum(each) / len(each):.1f} ({min(each):.1f} to {max(each):.1f})" for each in values]
        lines.append(f"| {rows[0]['label']} | " + " | ".join(said) + " |")
    return "\n".join(lines)


def added(
    outcomes: list[Mapping[str, Any]],
    labels: Mapping[str, str],
    columns: Mapping[str, str],
    pairs: Sequence[tuple[str, str]] = WITH_CONTROLS,
) -> str:
    """What one row gets right more than another, image by image, in points with the 95 % interval.

    Args:
        outcomes: arrays of `ROW/COLUMN`, a seed each, which are put together.
        labels: of the rows.
        columns: of the cells, by their headings.
        pairs: of rows: each layer and its controls, if nothing else is said.
    """
    lines = ["| points | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for row, other in pairs:
        said = []
        for column in columns.values():
            ours, theirs = (
                torch.cat([torch.from_numpy(arrays[f"{key}/{column}"]) for arrays in outcomes]) for key in (row, other)
            )
            found = paired_difference(ours, theirs)
            points = f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
            said.append(points.replace("-", "−"))
        lines.append(f"| {labels[row]} less *{labels[other]}* | " + " | ".join(said) + " |")
    return "\n".join(lines)


def corruptions(result: dict[str, Any]) -> str:
    """Each corruption's mean accuracy over the five severities, the lowest, and the clean calibration, in per cent.

    Below the table are named the rows that it lacks: those not run, and those that some corruption is missing of.
    """
    kinds = list(dict.fromkeys(column.rpartition("-")[0] for column in result["columns"] if column != "clean"))
    columns = {kind: [column for column in result["columns"] if column.rpartition("-")[0] == kind] for kind in kinds}
    lines = [
        "| defence | clean | " + " | ".join(kinds) + " | calibration error, clean |",
        "|---|" + "---|" * (len(kinds) + 2),
    ]
    lacking: dict[str, list[str]] = {"Not run yet": [], "Not run whole": []}
    for row in result["rows"]:
        cells = row["cells"]
        if any(cell["status"] != "done" for cell in cells.values()):
            begun = any(cell["status"] != "not run" for cell in cells.values())
            lacking["Not run whole" if begun else "Not run yet"].append(row["label"])
            continue
        said = []
        for names in columns.values():
            values = [100 * cells[name]["value"] for name in names]
            said.append(f"{sum(values) / len(values):.1f} ({min(values):.1f})")
        clean, error = cells["clean"], 100 * cells["clean"]["calibration_error"]
        lines.append(f"| {row['label']} | {cell_text(clean, None)} | " + " | ".join(said) + f" | {error:.1f} |")
    absent = " ".join(f"{how}: {', '.join(labels)}." for how, labels in lacking.items() if labels)
    return "\n".join([*lines, "", absent] if absent else lines)


def bands(results: list[dict[str, Any]]) -> str:
    """What FGSM does through either of the layer's bands, before the layer and behind it: see `bands.py`."""
    widths = []

    def percent(found: Mapping[str, float]) -> str:
        widths.append(50 * (found["high"] - found["low"]))
        return f"{100 * found['value']:.1f}"

    def line(*parts: str) -> str:
        return f"| {' | '.join(parts)} |"

    lines = [line("images", "attack", "lambda", "clean", "both bands attacked", "the low alone", "the high alone")]
    lines.append("|---" * 7 + "|")
    for result in results:
        for attack, found in result["attacks"].items():
            first = f"{result['data']}, {result['size'][-1]} px", attack
            ways = (percent(found[way]) for way in ("both", "low", "high"))
            lines.append(line(*first, "no layer", percent(result["clean"]), *ways))
            for sparsity, behind in found["behind the layer"].items():
                clean = result["clean, behind the layer"][sparsity]
                ways = (percent(behind[way]) for way in ("both", "low", "high"))
                lines.append(line(*first, sparsity, percent(clean), *ways))
    counts = " and ".join(str(result["images"]) for result in results)
    said = (
        f"Accuracy in per cent on {counts} images; a 95 % interval reaches {max(widths):.0f} points either way at most."
    )
    return "\n".join([*lines, "", said])


def pyramid(result: dict[str, Any]) -> str:
    """The accuracies behind a pyramid of layers, one line each: see `pyramid.py`."""
    attacks = list(result["rows"][0]["accuracy"])
    lines = ["| levels | lambda, from the finest | " + " | ".join(attacks) + " |", "|---" * (2 + len(attacks)) + "|"]
    for row in result["rows"]:
        sparsities = row["lambda"]
        levels = f"{len(sparsities)}, each {row['factor']} times smaller" if len(sparsities) > 1 else "the layer"
        said = (levels if sparsities else "no layer", ", ".join(map(str, sparsities)) or "–")
        cells = [cell_text({"status": "done"} | row["accuracy"][attack], None) for attack in attacks]
        lines.append(f"| {' | '.join((*said, *cells))} |")
    return "\n".join([*lines, "", f"Accuracy in per cent ± half of the 95 % interval, on {result['images']} images."])


def excerpt(result: dict[str, Any]) -> str:
    """The README's table: the layers and their controls, two attacks at both strengths."""
    columns = {"clean": "clean"}
    for attack in ("fgsm-0.08", "bim-0.03"):
        columns |= {attack: attack, f"{attack}, strength-matched": result["matched"][attack]}
    lines = ["| CIFAR-10 | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for row in result["rows"]:
        if row["key"] in EXCERPT:
            cells = [cell_text(row["cells"][column], None) for column in columns.values()]
            lines.append(f"| {row['label']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def made(root: Path) -> list[str]:
    """The tables and figures that there are result files of; the corruptions have a table of their own form."""
    there = [name for name in table_names() if (root / "results" / "tables" / f"{name}-{PRESET}.json").is_file()]
    return [name for name in there if name != "corruptions"]


def drawings(root: Path) -> dict[Path, str]:
    """The SVG files of the tables and figures, by their paths."""
    found = {}
    for name in made(root):
        result = json.loads((root / "results" / "tables" / f"{name}-{PRESET}.json").read_text())
        for kind, drawn in figures_of(result).items():
            if kind == "map" and result["threat"] != "vanilla":  # figure 6 is of the attacked classifier
                continue
            found[root / "docs" / "figures" / f"{name}-{kind}.svg"] = standalone(drawn)
    return found


def sections(root: Path) -> dict[str, str]:
    """The sections of the page out of the result files below `root`."""

    def read(name: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((root / "results" / "tables" / f"{name}.json").read_text())
        return values

    parts = {}
    for name, path in ({name: f"{name}-{PRESET}" for name in made(root)} | OTHERS).items():
        result = read(path)
        parts[name] = f"{findings(result)}\n\n{table_markdown(result).partition(chr(10) * 2)[2]}".lstrip()
    for name in SEEDED:
        seeds = [read(f"{name}-{PRESET}{suffix}") for suffix in SEEDS]
        stated = {column: column for column in seeds[0]["columns"]}
        said = (over_seeds(seeds, stated), "Strength-matched:", over_seeds(seeds, matched_columns(seeds[0])))
        parts[f"seeds of {name}"] = "\n\n".join(said)
    for name, (path, suffixes) in ADDED.items():
        result = read(path)
        paths = [root / "results" / "tables" / f"{path}{suffix}.npz" for suffix in suffixes]
        outcomes = [dict(np.load(path)) for path in paths]
        labels = {row["key"]: row["label"] for row in result["rows"]}
        stated = {column: column for column in result["columns"]}
        pairs = PAIRS.get(name, WITH_CONTROLS)
        both = [added(outcomes, labels, columns, pairs) for columns in (stated, matched_columns(result))]
        parts[f"what the layer adds in {name}"] = "\n\nStrength-matched:\n\n".join(both)
    parts["corruptions"] = corruptions(read(f"corruptions-{PRESET}"))
    found = [json.loads((root / "results" / "bands" / f"{name}.json").read_text()) for name in ("cifar10", "imagenet")]
    parts["bands"] = bands(found)
    parts["pyramid"] = pyramid(json.loads((root / "results" / "bands" / "pyramid.json").read_text()))
    parts["excerpt"] = excerpt(read(f"table1-{PRESET}"))
    return parts


def pages(root: Path) -> dict[Path, str]:
    """The pages with their measured parts, by their paths."""
    measured = sections(root)
    written = {}
    for path in (root / "docs" / "results.md", root / "README.md"):
        text = path.read_text(encoding="utf-8")
        written[path] = update(text, {name: part for name, part in measured.items() if f"<!-- {name} -->" in text})
    return written


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    for path, text in (pages(here) | drawings(here)).items():
        write_text(path, text)
