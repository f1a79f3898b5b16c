"""What a table's result file says, as text in rows: the same for Markdown, LaTeX and the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]
THREATS = {
    "retrained": "gray-box: the attacks see the vanilla classifier; each transformation has its own, retrained one",
    "vanilla": "gray-box: the attacks see the vanilla classifier, which stands behind each transformation",
    "white-box": "white-box: the attacks see the defended classifier, straight through a transformation (BPDA)",
}
GIVEN_WEIGHTS = {"mobilenet": "MobileNetV2", "tuned mobilenet": "MobileNetV2, trained on with these images"}
EMPTY = {"not run": "not run", "none": "–", "failed": "failed"}
LEGEND = (
    "Accuracy in per cent ± half of the 95 % interval; in brackets what the paper prints, and ours less that. {judged} "
    "In italics: rows that the paper's table does not have."
)
DETECTORS = "Where there is a detector, a clean image must not be flagged to count; an attacked one counts if it is."
MATCHED = (
    "each attack's budget is lowered until the vanilla network scores what the paper prints for it, so that our "
    "defended cells can be compared with the paper's."
)


@dataclass(frozen=True)
class Block:
    """The rows at one strength of the attacks: headings, and of each row its label, whether the paper has it, cells."""

    key: str
    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, bool, tuple[str, ...]], ...]


def name_of(result: Result) -> str:
    """What a result is called in files, labels and links: its table and preset, as `table1-small`."""
    return f"{result['table']}-{result['preset']}"


def blocks_of(result: Result) -> list[Block]:
    """The table at the stated budgets, then strength-matched where any such cell is filled.

    A row of the paper's stands at the stated budgets even where none of it has been run, with what the paper prints.

    Args:
        result: what `run_tables` wrote.
    """
    run = [row for row in result["rows"] if not _is_missing(row)]
    shown = [row for row in result["rows"] if row["in_paper"] or not _is_missing(row)]
    stated = {column: column for column in result["columns"]}
    made = [_block("stated", "At the stated budgets", "", stated, shown)]
    matched = matched_columns(result)
    if matched:
        made.append(_block("matched", "Strength-matched", MATCHED, matched, run))
    return made


def matched_columns(result: Result) -> dict[str, str]:
    """The strength-matched columns by the stated ones, of those that are filled in any row."""
    every: Mapping[str, str] = result.get("matched", {})

    def filled(column: str) -> bool:
        return any(row["cells"][column]["status"] == "done" for row in result["rows"])

    return {stated: column for stated, column in every.items() if filled(column)}


def _block(key: str, title: str, note: str, columns: Mapping[str, str], shown: Sequence[Mapping[str, Any]]) -> Block:
    rows = tuple(
        (
            row["label"],
            row["in_paper"],
            tuple(cell_text(row["cells"][column], row["paper"].get(stated)) for stated, column in columns.items()),
        )
        for row in shown
    )
    return Block(key, title, note, tuple(columns), rows)


def _is_missing(row: Mapping[str, Any]) -> bool:
    """Whether no cell of it has been run."""
    return {cell["status"] for cell in row["cells"].values()} == {"not run"}


def not_run(result: Result) -> str:
    """A sentence that names the rows, beside the paper's, of which no cell has been run; empty where there is none."""
    labels = [row["label"] for row in result["rows"] if _is_missing(row) and not row["in_paper"]]
    return f"Not run yet: {', '.join(labels)}." if labels else ""


def cell_text(cell: Mapping[str, Any], printed: float | None) -> str:
    """A cell in per cent: ours, its interval, the paper's and the difference."""
    paper = "" if printed is None else f"{100 * printed:.0f}"
    if cell["status"] != "done":
        return EMPTY[cell["status"]] + (f" ({paper})" if paper else "")
    half = 50 * (cell["high"] - cell["low"])
    flagged = f", {100 * cell['flagged']:.0f} flagged" if "flagged" in cell else ""
    apart = "" if printed is None else f" ({paper}, {_signed(100 * (cell['value'] - printed))})"
    return f"{100 * cell['value']:.1f} ± {half:.1f}{flagged}{apart}"


def _signed(points: float) -> str:
    """A difference in whole points; 0 has no sign."""
    return f"{round(points):+d}".replace("-", "−") if round(points) else "0"


def described(result: Result) -> str:
    """What was run: images, network, threat, and the paper's caption, or ours where the paper has no such table."""
    data, shape = result["data"], " × ".join(map(str, result["data"]["shape"]))
    caption = result["caption"]
    of_paper = result["title"].startswith(("Table", "Figure"))
    said = f"The paper: {caption}" if of_paper else f"{caption[:1].upper()}{caption[1:]}"
    network = GIVEN_WEIGHTS.get(result.get("network", ""), result["settings"]["network"])
    return (
        f"{data['name']}, {data['train']:,} training and {data['test']:,} test images of {shape}; "
        f"{network}. Threat: {THREATS[result['threat']]}. {said}."
    )


def legend(result: Result) -> str:
    """What the numbers are, on how many images, and which rows that the paper's table does not have are not run yet."""
    numbers = {cell["n"] for row in result["rows"] for cell in row["cells"].values() if cell["status"] == "done"}
    counts = " and ".join(f"{number:,}" for number in sorted(numbers))
    text = LEGEND.format(judged=f"Judged on {counts} images." if numbers else "").replace("  ", " ")
    detectors = any("flagged" in cell for row in result["rows"] for cell in row["cells"].values())
    return " ".join(filter(None, (text, DETECTORS if detectors else "", not_run(result))))


def why_empty(result: Result) -> list[str]:
    """Why cells failed, and why an attack could not be matched; each reason once."""
    rows, matched = result["rows"], result.get("matched", {})
    found = {
        f"{row['label']}: {cell['reason']}"
        for row in rows
        for cell in row["cells"].values()
        if cell["status"] == "failed"
    }
    unmatched = {
        f"{stated}, strength-matched: {row['cells'][column]['reason']}"
        for row in rows[:1]
        for stated, column in matched.items()
        if row["cells"][column]["status"] == "none"
    }
    return sorted(found) + sorted(unmatched)


def calibration_of(result: Result) -> list[tuple[str, str]]:
    """Of each row without a detector that has its clean cell: the label, and the expected calibration error there."""
    cells = [(row["label"], row["cells"].get("clean", {})) for row in result["rows"]]
    found = [(label, cell["calibration_error"]) for label, cell in cells if "calibration_error" in cell]
    return [(label, f"{100 * error:.1f}") for label, error in found]


def strengths_of(result: Result) -> list[tuple[str, str, str, str]]:
    """Of each attack its name, mean L2-dissimilarity, mean L-infinity and mean PSNR in dB, as used."""
    names = {column: f"{stated}, matched" for stated, column in result.get("matched", {}).items()}
    return [
        (
            names.get(column, column),
            f"{used['dissimilarity']:.4f}",
            f"{used['linf']:.4f}",
            "–" if used["psnr"] is None else f"{used['psnr']:.1f}",
        )
        for column, used in result["strengths"].items()
    ]
