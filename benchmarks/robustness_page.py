"""The measured parts of `docs/robustness.md`, each a pure function of a result file.

python benchmarks/robustness_page.py      puts them into the page
"""

import json
from pathlib import Path
from typing import Any

from attack_goals import goals
from quasinat.report.certified_curve import certified_markdown
from quasinat.report.white_box_sheet import white_box_markdown
from table import update


def in_short(white: dict[str, Any], certified: dict[str, Any]) -> str:
    """What a reader should take away, with the figures behind it."""
    cells = {row["key"]: row["cells"] for row in white["rows"]}
    clean = {name: _percent(share) for name, share in white["clean"].items()}
    worst = white["headline"]
    if worst is None:
        return "The headline is withheld: a mandatory check did not pass."

    def at(key: str, budget: str) -> str:
        return _percent(worst[budget] if key == "worst" else cells[key][budget])

    two, four, eight, paper = "linf:2/255", "linf:4/255", "linf:8/255", "dissimilarity:0.03"
    layer, alone = certified["rows"][0], certified["rows"][1]
    middle = len(layer["certified"]) // 2
    radius = layer["certified"][middle]["radius"]
    proven = [_percent(row["certified"][middle]) for row in (layer, alone)]
    against = f"{clean['adversarial']} against {clean['defended']}"
    sentences = [
        "**Against somebody who does not know of it, the layer helps.** Images made on the undefended network are "
        f"still read right in {at('oblivious', paper)} of cases at the paper's L2-dissimilarity of 0.03 and in "
        f"{at('oblivious', eight)} at L-infinity 8/255 (clean: {clean['defended']}). How much of that is the "
        "layer's, and how much is attacks that do not transfer, the control rows of `quasinat demo` say.",
        f"**Against somebody who does know, it does not.** The worst case leaves {at('worst', paper)} at 0.03, "
        f"{at('worst', two)} at 2/255, {at('worst', four)} at 4/255 and {at('worst', eight)} at 8/255. The "
        f"adversarially trained network of equal size keeps {at('adversarial', two)}, {at('adversarial', four)} and "
        f"{at('adversarial', eight)} there, for a lower clean accuracy ({against}); the undefended one "
        f"{at('base', two)}, {at('base', four)} and {at('base', eight)}. Nor does it take the gradient: "
        f"Square, which sees the scores only, leaves {at('square', paper)} at 0.03.",
        f"**The gradient decides what one sees.** At 4/255 BPDA with the identity leaves {at('identity', four)}, the "
        f"true gradient {at('implicit', four)}: an evaluation that stops at the identity overstates the layer.",
        f"**The strata are no obstacle.** An attack on the vote leaves {at('routing', four)} at 4/255, PGD that "
        f"ignores it {at('implicit', four)}.",
        "**What passes the layer uncoded is not its weakest point.** Perturbations in the low-pass band alone leave "
        f"{at('low-pass', paper)} at 0.03, those in the span of the active atoms {at('active-span', paper)}.",
        f"**Certified**, it is no better than the noise-trained classifier alone: {proven[0]} against {proven[1]} at "
        f"an L2 radius of {radius:g}.",
    ]
    return "".join(f"- {sentence}\n" for sentence in sentences)


def _percent(share: dict[str, Any]) -> str:
    return f"{100 * share['value']:.1f} %"


def machine_line(results: dict[str, Any]) -> str:
    """Where the attacks were timed, and with which versions."""
    made = results["machine"]
    peers = ", ".join(f"{name} {made[name]}" for name in ("foolbox", "adversarial-robustness-toolbox", "torchattacks"))
    return f"{made['processor']}, {made['threads']} thread(s), torch {made['torch']}; {peers}."


def sections(root: Path) -> dict[str, str]:
    """The sections of the page out of the result files below `root`."""

    def read(name: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((root / "results" / name).read_text())
        return values

    names = ("performance/attacks", "white-box/white-box", "certify/certify")
    speed, white, certified = (read(f"{name}.json") for name in names)
    return {
        "in short": in_short(white, certified),
        "white-box": white_box_markdown(white),
        "certified": certified_markdown(certified).partition("\n\n")[2],
        "speed": f"{goals(speed)}\n{machine_line(speed)}",
    }


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    page = here / "docs" / "robustness.md"
    page.write_text(update(page.read_text(), sections(here)))
