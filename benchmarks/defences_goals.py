"""What `benchmarks/defences.py` measured, as Markdown: the goals beside their figures, then every transformation."""

from typing import Any

MEMORY_GOAL = 2e9  # bytes


def goals(result: dict[str, Any]) -> str:
    """The goals with their figures, as Markdown; a pure function of the results."""
    most = max(result["defences"].items(), key=lambda pair: pair[1]["memory, bytes"])
    slowest = max(
        result["quilting"][which]["quilting an image"]["exact, one by one"]["seconds"]
        for which in ("8-bit images", "noisy images")
    )
    faster = result["pixel-defend"]["times faster"]
    lines = ["| what | goal | figure | met |", "| --- | --- | --- | --- |"]
    for case, of in result["tvm"]["cases"].items():
        for row, figure in of["ours"].items():
            times, count = figure["times faster"], result["tvm"]["images"]["count"]
            lower = {name: figure[name]["at most theirs"] for name in ("ART's sum", "our sum")}
            met = times >= 50 and all(number == count for number in lower.values())
            sums = ", ".join(f"{name} {number} of {count}" for name, number in lower.items())
            what = f"TVM, {case}, {row}: times faster than ART (at most theirs: {sums})"
            lines.append(f"| {what} | >= 50 | {times:.1f} | {_yes(met)} |")
    lines += [
        f"| quilting at 224 px, seconds an image | < 0.5 | {slowest:.3f} | {_yes(slowest < 0.5)} |",
        f"| PixelDefend at 32 px, times faster than full passes | >= 20 | {faster:.1f} | {_yes(faster >= 20)} |",
        f"| most memory, 16 images of 224 px ({most[0]}), GB | < 2 | {most[1]['memory, bytes'] / 1e9:.2f} | "
        f"{_yes(most[1]['memory, bytes'] < MEMORY_GOAL)} |",
    ]
    return "\n".join(lines)


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"


def costs(result: dict[str, Any]) -> str:
    """What every transformation takes, as Markdown, the fastest at 224 px first; a pure function of the results."""
    lines = [
        "| transformation | images a second, 32 px | images a second, 224 px | GB, 16 images of 224 px |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, of in sorted(result["defences"].items(), key=lambda pair: -pair[1]["224 px"]):
        rates = " | ".join(_three_digits(of[size]) for size in ("32 px", "224 px"))
        lines.append(f"| `{name}` | {rates} | {of['memory, bytes'] / 1e9:.2f} |")
    return "\n".join(lines)


def _three_digits(rate: float) -> str:
    """A rate to three digits, without an exponent."""
    return f"{rate:.3g}" if rate < 1000 else f"{round(rate, 2 - len(str(int(rate))) + 1):,.0f}"
