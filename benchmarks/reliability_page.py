"""The measured parts of docs/reliability.md, pure functions of the files in `results/reliability`.

python benchmarks/reliability_page.py      puts them into the page
"""

import json
from pathlib import Path
from typing import Any

from table import update


def fuzzed(result: dict[str, Any]) -> str:
    """What the readers made of their damaged input."""
    made, limits = result["provenance"], result["limits"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("torch", "pillow", "safetensors", "pyarrow", "numpy"))
    lines = [
        f"{result['cases']:,} cases of all readers together, seed {result['seed']}: {result['read']:,} read, "
        f"{result['refused']:,} refused in one line, **{result['findings']} findings**. The slowest took "
        f"{result['slowest, s']:.1f} s by the clock of a busy machine, the largest "
        f"{result['most memory, MB']:,.0f} MB beside what the process holds; the limits are "
        f"{limits['seconds of a processor']:.0f} s of a processor, {limits['seconds']:.0f} s by the clock and "
        f"{limits['MB']:,.0f} MB. Python {made['python']}, {versions}.{_merged(result['readers'])}",
        "",
        "| reader | cases | read | refused | findings | slowest, s | most memory, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, reader in result["readers"].items():
        counts = " | ".join(f"{reader[key]:,}" for key in ("cases", "read", "refused", "finding"))
        lines.append(f"| {name} | {counts} | {reader['slowest, s']:.2f} | {reader['most memory, MB']:.0f} |")
    return "\n".join([*lines, ""])


def _merged(readers: dict[str, dict[str, Any]]) -> str:
    """That the file is of several runs, where it is: those of a changed reader are run anew, and the others kept."""
    states = len({reader["code"] for reader in readers.values()})
    if states == 1:
        return ""
    return f" The file is merged of runs of {states} states of the code, and names that of each reader."


def enlarged(result: dict[str, Any]) -> str:
    """The large image."""
    made = result["machine"]
    return (
        f"An image of {result['side']} × {result['side']} pixels and one channel took, by a layer of "
        f"{result['filters']} filters and in tiles of {result['tile']} pixels, {result['seconds']:,.0f} s and "
        f"{result['memory, MB']:,.0f} MB beside itself, {result['bytes a pixel']:.0f} bytes a pixel; the bound is "
        f"{result['bound, MB']:,.0f} MB. One thread of {made['processor']}, torch {made['torch']}, {made['date']}."
    )


def soaked(result: dict[str, Any] | None) -> str:
    """The service under load for long: every single figure of its result file; nothing where there is no such file."""
    if result is None:
        return ""
    lines = ["## The service under load", "", "| what | figure |", "| --- | ---: |"]
    lines += [
        f"| {name} | {value:,} |" if isinstance(value, int | float) else f"| {name} | {value} |"
        for name, value in result.items()
        if isinstance(value, int | float | str)
    ]
    for name in ("in use, MiB", "free and kept, MiB"):
        held = result["server"][name]
        lines.append(f"| memory {name}; its slope a minute | {held['mean']:g}; {held['slope a minute']:+.3f} |")
    return "\n".join([*lines, ""])


def sections(folder: Path) -> dict[str, str]:
    """The page's parts by their marks."""
    soak = folder / "soak.json"
    return {
        "fuzz": fuzzed(json.loads((folder / "fuzz.json").read_text(encoding="utf-8"))),
        "large": enlarged(json.loads((folder / "large.json").read_text(encoding="utf-8"))),
        "soak": soaked(json.loads(soak.read_text(encoding="utf-8")) if soak.is_file() else None),
    }


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    page = root / "docs" / "reliability.md"
    text = update(page.read_text(encoding="utf-8"), sections(root / "results" / "reliability"))
    page.write_text(text, encoding="utf-8")
