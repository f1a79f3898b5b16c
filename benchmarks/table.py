"""The benchmark's numbers as Markdown: each goal beside its figure, then the details."""

import json
from pathlib import Path
from typing import Any


def table(results: dict[str, Any]) -> str:
    """The page of `results.json`; a pure function of it."""
    return "\n".join([*_goals(results), "", *_solvers(results), "", *_scaling(results), "", *_gradients(results), ""])


def _row(goal: str, wanted: str, figure: str, met: bool | None) -> str:
    verdict = "not measured" if met is None else "" if wanted == "-" else "yes" if met else "**no**"
    return f"| {goal} | {wanted} | {figure} | {verdict} |"


def _goals(results: dict[str, Any]) -> list[str]:
    lines = ["| what | goal | figure | met |", "| --- | --- | --- | --- |"]
    for size, least in (("32", 25), ("64", 20), ("224", 12)):
        faster = results["one thread"][size]["times faster"]
        name = f"one thread, {size} px, times faster than SPORCO's recipe, to a gap of 0.1 %"
        figure = faster["coordinate-descent"]
        lines.append(
            _row(f"{name} of every image, coordinate descent", f">= {least}", f"{figure:.0f}", figure >= least)
        )
        mean, worst = faster["admm, in the mean"], faster["admm"]
        lines.append(_row(f"{name} in the mean, ADMM", ">= 5", f"{mean:.1f}", mean >= 5))
        lines.append(_row(f"{name} of every image, ADMM", ">= 5", f"{worst:.1f}", worst >= 5))
    for name, figure in results["two threads"].items():
        goal = ">= 1.8" if name.startswith("a batch") else "-"
        lines.append(_row(f"two threads against one, {name}", goal, f"{figure:.2f}", goal == "-" or figure >= 1.8))
    lines += _whole_set(results["whole set"])
    ratio = results["scaling"]["largest over smallest"]
    lines.append(
        _row(
            "cost per pixel to a gap of 0.1 %, 32 to 512 px, largest over smallest",
            "<= 1.15",
            f"{ratio:.2f}",
            ratio <= 1.15,
        )
    )
    large = results["large image"]
    slowest = large["seconds, slowest"]
    figure = f"{large['seconds, median of 8 images']:.3f} s, slowest of 8 {slowest:.3f} s"
    lines.append(_row("one 224 px image to a certified 1 %, one thread", "< 0.5 s", figure, slowest < 0.5))
    implicit = results["gradients"]["implicit"]["backward over forward"]
    lines.append(_row("implicit gradient over its forward solve", "<= 3", f"{implicit:.2f}", implicit <= 3))
    return lines + _gpu(results["gpu"])


def _whole_set(part: dict[str, Any]) -> list[str]:
    name = "all 10,000 CIFAR-10 test images, two threads, to 0.1 %"
    if "not run" in part:
        return [_row(name, "< 30 s", part["not run"], None)]
    few = part["320 images"]
    worst = few["coordinate descent, worst gap"]
    return [
        _row(name, "< 30 s", f"{part['seconds']:.1f} s", part["seconds"] < 30 and part["not converged"] == 0),
        _row(
            f"320 CIFAR-10 images, worst gap (SPORCO: {100 * few['sporco, worst gap']:.2g} %)",
            "<= 0.2 %",
            f"{100 * worst:.3f} %",
            worst <= 0.002,
        ),
        _row(
            "320 CIFAR-10 images, worst gap, ADMM",
            "<= 0.2 %",
            f"{100 * few['admm, worst gap']:.3f} %, {few['admm, not converged']} above the step limit",
            few["admm, worst gap"] <= 0.002 and few["admm, not converged"] == 0,
        ),
    ]


def _gpu(part: dict[str, Any]) -> list[str]:
    if "not measured" in part:
        goals = (("32", "40,000"), ("64", "10,000"), ("224", "800"))
        rows = [
            _row(f"one GPU, 45 steps, {size} px, images/s", f">= {goal}", part["not measured"], None)
            for size, goal in goals
        ]
        return [*rows, _row("one 224 px image on the GPU", "< 5 ms", part["not measured"], None)]
    return [
        _row(f"{part['device']}, {name}", "-", f"{row['images per second']:.0f} images/s", None)
        for name, row in part.items()
        if isinstance(row, dict)
    ]


def _solvers(results: dict[str, Any]) -> list[str]:
    lines = [
        "| px | images | solver | ms per image | mean gap | worst gap | times faster |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for size, part in results["one thread"].items():
        for name, milliseconds in part["ms per image"].items():
            setting = f"`{part['setting'][name]}`" if name in part["setting"] else "SPORCO, the authors' recipe"
            lines.append(
                f"| {size} | {part['count']}, {part['images']} | {setting} | {milliseconds:.2f} | "
                f"{100 * part['mean gap'][name]:.3f} % | {100 * part['worst gap'][name]:.3f} % | "
                f"{part['times faster'][name]:.1f} |"
            )
    lines += [
        "",
        "| px | coordinate descent: MFLOP per image | of it in looks at all pixels "
        "| rate of a matrix product, GFLOP/s | floor, ms | measured over floor |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size, part in results["one thread"].items():
        least = part["floor"]
        lines.append(
            f"| {size} | {least['MFLOP per image']:.0f} | {100 * least['share of it in looks']:.0f} % | "
            f"{least['GFLOP per second']:.0f} | {least['ms per image at that rate']:.2f} | "
            f"{least['measured over floor']:.1f} |"
        )
    return lines


def _scaling(results: dict[str, Any]) -> list[str]:
    part = results["scaling"]
    sizes = part["nanoseconds per pixel"]
    return [
        "| side, px | " + " | ".join(sizes) + " |",
        "| --- |" + " ---: |" * len(sizes),
        "| microseconds per pixel, every picture within 0.1 % | "
        + " | ".join(f"{value / 1e3:.2f}" for value in sizes.values())
        + " |",
        "| at a tolerance of | " + " | ".join(f"{value:g}" for value in part["tolerance"].values()) + " |",
        "| microseconds per pixel, certified within 1 % | "
        + " | ".join(f"{value / 1e3:.2f}" for value in part["nanoseconds per pixel, certified 1 %"].values())
        + " |",
        "",
        "| side, px | " + " | ".join(part["bytes per pixel"]) + " |",
        "| --- |" + " ---: |" * len(part["bytes per pixel"]),
        "| bytes per pixel, peak | " + " | ".join(f"{value:.0f}" for value in part["bytes per pixel"].values()) + " |",
    ]


def _gradients(results: dict[str, Any]) -> list[str]:
    lines = [
        "| gradient | forward, ms per image | backward, ms per image | cosine with the true gradient |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in results["gradients"].items():
        lines.append(
            f"| {name} | {row['forward, ms per image']:.2f} | {row['backward, ms per image']:.2f} | "
            f"{row['cosine with the true gradient']:.4f} |"
        )
    return lines


def peers_table(measured: dict[str, Any]) -> str:
    """The page of `peers.json`, the quickest first; a pure function of it."""
    lines = [
        "| package | the problem as | ms per image | version |",
        "| --- | --- | ---: | --- |",
    ]
    for row in sorted(measured["peers"], key=lambda row: row["seconds_per_image"]):
        name = f"{row['peer']} | {row['posed_as']}"
        lines.append(f"| {name} | {1e3 * row['seconds_per_image']:.1f} | {row['version']} |")
    return "\n".join([*lines, ""])


def machine_line(results: dict[str, Any]) -> str:
    """What the numbers were measured on."""
    part = results["machine"]
    return (
        f"{part['processor']}, {part['cores']} cores, kernel with {part['kernel']}; Python {part['python']}, torch "
        f"{part['torch']}, numpy {part['numpy']}, sporco {part['sporco']}; {part['date']}."
    )


def update(page: str, sections: dict[str, str]) -> str:
    """`page` with what stands between `<!-- NAME -->` and `<!-- end -->` replaced by the section of that name."""
    for name, text in sections.items():
        start, end = page.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n"), "<!-- end -->"
        page = page[:start] + text.rstrip("\n") + "\n" + page[page.index(end, start) :]
    return page


def sections(folder: Path) -> dict[str, str]:
    """The measured sections of `docs/performance.md`, out of the result files in `folder`."""
    results = json.loads((folder / "results.json").read_text())
    peers = json.loads((folder / "peers.json").read_text())
    return {"machine": machine_line(results), "table": table(results), "peers": peers_table(peers)}


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    path = root / "docs" / "performance.md"
    path.write_text(update(path.read_text(), sections(root / "results" / "performance")))
