"""The tables of docs/export.md and docs/latency.png, made of results/performance/latency.json; run it after that."""

import json
from pathlib import Path
from typing import Any

from table import update

ENGINES = {"eager": "PyTorch", "compiled": "torch.compile", "onnxruntime": "onnxruntime"}
DOTS = 150


def table(found: dict[str, Any]) -> str:
    """One table a size: error and labels by the number of steps, beside the time of one image and of a batch."""
    return "\n".join(line for side, part in found["sizes"].items() for line in _of_size(side, part, steps_of(found)))


def steps_of(found: dict[str, Any]) -> list[str]:
    """The numbers of steps that were measured, as the file's keys."""
    return [str(steps) for steps in found["steps"]]


def _of_size(side: str, part: dict[str, Any], steps: list[str]) -> list[str]:
    images, batch = part["curve"]["exact"]["images"], part["batch"]
    lines = [
        f"**{side} px**, {part['set']}, {images} images; images/s in batches of {batch}, "
        f"{part['throughput']['measured']} of {part['throughput']['date']}",
        "",
        "| steps | error, largest | error, mean | accuracy | label of the exact T(x) | "
        + " | ".join(f"{name}, ms p50 / p99" for name in ENGINES.values())
        + " | "
        + " | ".join(f"{name}, images/s" for name in ENGINES.values())
        + " |",
        "| --- |" + " ---: |" * (4 + 2 * len(ENGINES)),
    ]
    lines += [_row(count, part, count, images) for count in steps]
    lines += [_bounded(most, part) for most in part["bounded"]]
    lines += [_row("adaptive, the layer as it is", part, "adaptive", images), _row("exact", part, "exact", images), ""]
    return lines


def _bounded(most: str, part: dict[str, Any]) -> str:
    """Coordinate descent held to so many passes, in the same columns; it runs in PyTorch only."""
    row = part["bounded"][most]
    times = f"{_short(row['p50'])} / {_short(row['p99'])}"
    rate = _short(part["throughput"]["bounded"][most]["images a second"])
    cells = [f"adaptive, {at_most(most)}", *_quality(row), times, "", "", rate, "", ""]
    return "| " + " | ".join(cells) + " |"


def at_most(passes: str) -> str:
    """The bound in words."""
    return f"at most {passes} pass{'' if passes == '1' else 'es'}"


def _quality(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['largest']:.1e}",
        f"{row['mean']:.1e}",
        f"{100 * row['accuracy']:.1f} %",
        f"{100 * row['same label']:.1f} %",
    ]


def _row(name: str, part: dict[str, Any], key: str, images: int) -> str:
    curve = part["curve"][key]
    fewer = "" if curve["images"] == images else f" ({curve['images']} images)"
    cells = [name + fewer, *_quality(curve)]
    speeds = [part[engine].get(key) for engine in ENGINES]
    cells += ["" if speed is None else f"{_short(speed['p50'])} / {_short(speed['p99'])}" for speed in speeds]
    rates = [part["throughput"][engine].get(key) for engine in ENGINES]
    cells += ["" if rate is None else _short(rate["images a second"]) for rate in rates]
    return "| " + " | ".join(cells) + " |"


def _short(value: float) -> str:
    """Three figures."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def stream(found: dict[str, Any]) -> str:
    """What a warm start is worth: mean error at the last frame."""
    lines = [
        "| px | steps a frame | cold | warm, moving a pixel a frame | warm, still |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for side, part in found["sizes"].items():
        for steps in steps_of(found):
            row = part["stream"].get(steps)
            if row:
                each = " | ".join(f"{row[name]['mean']:.1e}" for name in ("cold", "warm", "still, warm"))
                lines.append(f"| {side} | {steps} | {each} |")
    lines += ["", "| px | coordinate descent, cold, ms | from the codes of a frame a pixel before, ms |"]
    lines += ["| --- | ---: | ---: |"]
    for side, part in found["sizes"].items():
        lines.append(f"| {side} | {_short(part['descent']['cold'])} | {_short(part['descent']['warm'])} |")
    return "\n".join(lines)


def choices(found: dict[str, Any]) -> str:
    """Mean error by the steps, of what was chosen and of what was not."""
    part = found["sizes"]["32"]["choices"]
    names = {"as it is": "ADMM, as it is", "from zero": "ADMM, from zero", "FISTA": "FISTA"}
    lines = [
        "| solver | " + " | ".join(f"{steps} steps" for steps in steps_of(found)) + " |",
        "| --- |" + " ---: |" * len(found["steps"]),
    ]
    for key, name in names.items():
        lines.append(f"| {name} | " + " | ".join(f"{part[steps][key]:.1e}" for steps in steps_of(found)) + " |")
    return "\n".join(lines)


def agreement(found: dict[str, Any]) -> str:
    """How far onnxruntime is from PyTorch, on how many images."""
    lines = [
        "| px | images | largest difference of T(x) | of a defended classifier's logits |",
        "| --- | ---: | ---: | ---: |",
    ]
    for side, part in found["sizes"].items():
        row = part["agreement"]
        apart, logits = max(row["steps"].values()), row["logits"]
        most = list(row["steps"])[-1]
        lines.append(
            f"| {side} | {row['images']} | {apart:.1e}, of 5 to {most} steps | {logits['apart']:.1e}, "
            f"of {logits['steps']} steps |"
        )
    return "\n".join(lines)


def machine_line(found: dict[str, Any]) -> str:
    """What the numbers were measured on."""
    part, share = found["machine"], found["share of the images"]
    trial = "" if share == 1 else f" A trial with {100 * share:.0f} % of the images, to learn from and to measure on."
    return f"One thread of {part['processor']}; Python {part['python']}, torch {part['torch']}; {part['date']}.{trial}"


def sections(folder: Path) -> dict[str, str]:
    """The measured sections of docs/export.md."""
    found = json.loads((folder / "latency.json").read_text(encoding="utf-8"))
    return {
        "machine": machine_line(found),
        "table": table(found),
        "figure": "![Mean error of T(x) over the time of one image at three sizes](latency.png)",
        "stream": stream(found),
        "choices": choices(found),
        "agreement": agreement(found),
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Mean error over the time of one image, a panel a size; the layer as it is as a cross."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from quasinat.report.certified_curve import COLOURS, STYLE

    with rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        panels = figure.subplots(1, len(found["sizes"]), squeeze=False)[0]
        for panel, (side, part) in zip(panels, found["sizes"].items(), strict=True):
            for colour, marker, (engine, name) in zip(COLOURS, "os^", ENGINES.items(), strict=False):
                times = [part[engine][steps]["p50"] for steps in steps_of(found)]
                errors = [part["curve"][steps]["mean"] for steps in steps_of(found)]
                panel.plot(times, errors, marker=marker, markersize=4.5, color=colour, label=name)
            held = part["bounded"].values()
            panel.plot(
                [row["p50"] for row in held],
                [row["mean"] for row in held],
                *("d--",),
                markersize=4.5,
                color=COLOURS[3],
                label="adaptive, at most 1 to 16 passes",
            )
            adaptive = part["eager"]["adaptive"]["p50"], part["curve"]["adaptive"]["mean"]
            panel.plot(*adaptive, "X", markersize=9, color=COLOURS[3], label="adaptive, the layer as it is")
            panel.set(xscale="log", yscale="log", title=f"{side} px", xlabel="ms for one image, one thread")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.grid(axis="y")
        panels[0].set_ylabel("mean error of T(x)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        figure.savefig(path, dpi=DOTS)


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    results, page = root / "results" / "performance", root / "docs" / "export.md"
    page.write_text(update(page.read_text(encoding="utf-8"), sections(results)), encoding="utf-8")
    draw(json.loads((results / "latency.json").read_text(encoding="utf-8")), root / "docs" / "latency.png")
