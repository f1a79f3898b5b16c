"""A table's result file as Markdown: ours with its interval, and what the paper prints."""

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
_THREATS = {
    "retrained": "gray-box: the attacks see the vanilla classifier; each transformation has its own, retrained one",
    "vanilla": "gray-box: the attacks see the vanilla classifier, which stands behind each transformation",
    "white-box": "white-box: the attacks see the defended classifier, straight through a transformation (BPDA)",
}


def table_markdown(result: Result) -> str:
    """The table, with the sizes of the run above it and how strong the attacks were below it.

    A cell is `ours ± half of the 95 % interval (paper)`, in per cent.

    Args:
        result: what `run_tables` wrote.
    """
    columns, data = result["columns"], result["data"]
    shape = " × ".join(map(str, data["shape"]))
    lines = [
        f"## {result['title']}, preset {result['preset']}",
        "",
        f"{data['name']}, {data['train']:,} training and {data['test']:,} test images of {shape}; "
        f"{result['settings']['network']}. Threat: {_THREATS[result['threat']]}. The paper: {result['caption']}.",
        "",
        "| defence | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row in result["rows"]:
        cells = [_cell(row["cells"][column], row["paper"].get(column)) for column in columns]
        name = row["label"] if row["in_paper"] else f"*{row['label']}*"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Accuracy in per cent ± half of the 95 % interval; in brackets what the paper prints. " + _notes(result),
    ]
    reasons = _reasons(result)
    if reasons:
        lines += ["", *(f"- {reason}" for reason in reasons)]
    if result["strengths"]:
        lines += ["", "| attack | mean L2-dissimilarity | mean L∞ | mean PSNR, dB |", "|---|---|---|---|"]
        lines += [
            f"| {column} | {used['dissimilarity']:.4f} | {used['linf']:.4f} | {_number(used['psnr'])} |"
            for column, used in result["strengths"].items()
        ]
    return "\n".join(lines) + "\n"


def _cell(cell: Mapping[str, Any], printed: float | None) -> str:
    paper = "" if printed is None else f" ({100 * printed:.0f})"
    if cell["status"] != "done":
        return {"not run": "not run", "none": "–", "failed": "failed"}[cell["status"]] + paper
    half = 50 * (cell["high"] - cell["low"])
    flagged = f", {100 * cell['flagged']:.0f} flagged" if "flagged" in cell else ""
    return f"{100 * cell['value']:.1f} ± {half:.1f}{flagged}{paper}"


def _notes(result: Result) -> str:
    numbers = {cell["n"] for row in result["rows"] for cell in row["cells"].values() if cell["status"] == "done"}
    counts = " and ".join(f"{number:,}" for number in sorted(numbers))
    notes = [f"Judged on {counts} images." if numbers else "", "In italics: rows that the paper's table does not have."]
    if any("flagged" in cell for row in result["rows"] for cell in row["cells"].values()):
        notes.append(
            "Where there is a detector, a clean image must not be flagged to count; an attacked one counts if it is."
        )
    return " ".join(note for note in notes if note)


def _reasons(result: Result) -> list[str]:
    """Why cells are not filled, each reason once."""
    found = {
        f"{row['label']}: {cell['reason']}"
        for row in result["rows"]
        for cell in row["cells"].values()
        if cell["status"] == "failed"
    }
    return sorted(found)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
