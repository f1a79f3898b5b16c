"""The measured tables of `docs/space.md`, each a pure function of a result file.

python benchmarks/space_page.py      puts them into the page
"""

import json
from pathlib import Path
from typing import Any

from table import update

GRAY = ("fgsm-0.08", "fgsm-0.04", "bim-0.03", "deepfool-0.03", "cw-0.03")


def learning_table(results: dict[str, Any]) -> str:
    """Of `benchmarks/learning.py`: the goals, then each learner, then memory."""
    auto, counts = results["auto"], list(next(iter(results["memory"].values())))
    lines = ["| what | goal | figure | met |", "| --- | --- | --- | --- |"]
    for name, part in results["against sporco"].items():
        faster = part[auto]["times faster"]
        figure = "not reached" if faster is None else f"{faster:.0f}"
        met = "yes" if faster is not None and faster >= 5 else "**no**"
        lines.append(f"| {name}: times faster to SPORCO's final objective | >= 5 | {figure} | {met} |")
    for key, by_count in results["memory"].items():
        ratio = by_count[counts[-1]] / by_count[counts[1]]
        what = f"memory of a pass over {int(counts[-1]):,} images, over that of {int(counts[1]):,}, {key}"
        lines.append(f"| {what} | <= 1.1 | {ratio:.2f} | {'yes' if ratio <= 1.1 else '**no**'} |")
    lines += ["", "| images | learner | objective | seconds to SPORCO's | times faster | to within 1 % of it |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for name, part in results["against sporco"].items():
        theirs = part["sporco"]
        lines.append(f"| {name} | SPORCO | {theirs['objective']:.4f} | {theirs['seconds']:.1f} | 1 | 1 |")
        for key in ("batch", "online", "consensus"):
            own = part[key]
            seconds, faster, near = (
                own[name] for name in ("seconds to SPORCO's", "times faster", "times faster to within 1 %")
            )
            cells = (
                "not reached" if seconds is None else f"{seconds:.2f}",
                "-" if faster is None else f"{faster:.0f}",
                "-" if near is None else f"{near:.0f}",
            )
            lines.append(f"| {name} | {key} | {own['objective']:.4f} | {' | '.join(cells)} |")
    lines += ["", "| memory of a pass, MB | " + " | ".join(f"{int(count):,} images" for count in counts) + " |"]
    lines += ["| --- |" + " ---: |" * len(counts)]
    for key, by_count in results["memory"].items():
        lines.append(f"| {key} | " + " | ".join(f"{by_count[count]:.0f}" for count in counts) + " |")
    return "\n".join([*lines, ""])


def choices_table(results: dict[str, Any]) -> str:
    """Of `benchmarks/choices.py`: the choices by score, accuracy in percent."""
    head = ["split", "normalise", "lambda", "PSNR", "clean", "gray-box mean", "white-box", "score", "score by seed"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for row in sorted(results["choices"], key=lambda row: -row["score"]):
        runs = row["seeds"]
        clean = sum(run["accuracy"]["clean"]["value"] for run in runs) / len(runs)
        gray, white = (
            sum(values) / len(runs)
            for values in ([run["gray-box mean"] for run in runs], [run["white-box"]["value"] for run in runs])
        )
        shares = " | ".join(f"{100 * value:.1f}" for value in (clean, gray, white, row["score"]))
        by_seed = ", ".join(f"{100 * run['score']:.1f}" for run in runs)
        lines.append(
            f"| {row['split']} | {row['normalise']} | {row['sparsity']} | {row['psnr']:.1f} dB | {shares} | {by_seed} |"
        )
    undefended = results["undefended"]
    gray = sum(undefended[column]["value"] for column in GRAY) / len(GRAY)
    lines.append(f"| no defence | | | | {100 * undefended['clean']['value']:.1f} | {100 * gray:.1f} | | | |")
    return "\n".join([*lines, ""])


def refine_table(results: dict[str, Any]) -> str:
    """Of `benchmarks/choices.py`: what filter updates for the input change."""
    lines = ["| refine | objective | PSNR | clean | gray-box mean | seconds an image |", "| ---: |" + " ---: |" * 5]
    for row in results["refine"]:
        cells = row["accuracy"]
        gray = sum(cells[column]["value"] for column in GRAY) / len(GRAY)
        accuracies = f"{100 * cells['clean']['value']:.1f} | {100 * gray:.1f}"
        measured = f"{row['objective']:.4f} | {row['psnr']:.2f} dB | {accuracies} | {row['seconds an image']:.3f}"
        lines.append(f"| {row['refine']} | {measured} |")
    return "\n".join([*lines, ""])


def cifar10_table(results: dict[str, Any]) -> str:
    """Of `benchmarks/cifar10.py`: PSNR of the projected test images, and how long the dictionaries took."""
    lines = ["| lambda | PSNR, universal | PSNR, stratified | learning the five dictionaries |"]
    lines += ["| ---: | ---: | ---: | ---: |"]
    for sparsity, minutes in results["minutes of the five dictionaries"].items():
        universal, own = (results["projection"][f"{name}-{sparsity}"]["psnr"] for name in ("universal", "stratified"))
        lines.append(f"| {sparsity} | {universal:.2f} dB | {own:.2f} dB | {minutes:.1f} min |")
    return "\n".join([*lines, ""])


def sections(root: Path) -> dict[str, str]:
    """The sections of the page out of the result files below `root`."""

    def read(name: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((root / "results" / name).read_text())
        return values

    choices = read("choices.json")
    return {
        "learning": learning_table(read("performance/learning.json")),
        "choices": choices_table(choices),
        "refine": refine_table(choices),
        "cifar10": cifar10_table(read("cifar10/projection.json")),
        "strata": (root / "results" / "cifar10" / "strata.md").read_text().partition("\n\n")[2],
    }


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    page = here / "docs" / "space.md"
    page.write_text(update(page.read_text(), sections(here)))
