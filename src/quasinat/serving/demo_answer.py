"""What the demo page shows, as JSON: pictures as PNG data URIs, labels with probabilities, the strongest codes."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.attacks import budget_text
from quasinat.report.code_sheet import Coded
from quasinat.report.pictures import amplification, data_uri, difference_image, filter_tiles
from quasinat.serving.demo_maths import Exhibit, Probabilities, Shown
from quasinat.serving.demo_options import ATTACKS_SHOWN, REACH, SIDES, THREATS, DemoOptions

MOST_LIKELY, STRONGEST = 3, 8
ABOVE, BELOW = (0.80, 0.25, 0.19), (0.19, 0.46, 0.80)  # red and blue of equal weight on light and on dark
FAINTEST = 0.4


def settings_json(exhibit: Exhibit, photographs: Sequence[str]) -> dict[str, Any]:
    """What the page has to know before it asks: what is here, what can be chosen, and why the rest cannot."""
    strata, filters, channels, size, _ = exhibit.layer.filters.shape
    return {
        "layer": {"strata": strata, "filters": filters, "size": size, "channels": channels},
        "lambda": {"learned": exhibit.layer.sparsity, "reach": REACH},
        "attacks": list(ATTACKS_SHOWN),
        "threats": {threat: {"on": on, "here": threat in exhibit.threats} for threat, on in THREATS.items()},
        "sides": list(SIDES),
        "labels": None if exhibit.labels is None else list(exhibit.labels),
        "photographs": list(photographs),
        "missing": missing(exhibit),
    }


def missing(exhibit: Exhibit) -> str | None:
    """Why there are fewer labels than there could be; None where both classifiers are here."""
    plain, model = exhibit.plain_model is not None, exhibit.model is not None
    if plain and model:
        return None
    if plain:
        return "This server has no defended classifier: there is nothing that a white-box attack could be run on."
    if model:
        return "This server has no plain classifier: there is nothing that a gray-box attack could be run on."
    return (
        "This server has a layer and no classifier: there are pictures but no labels, and nothing to attack. "
        "Random noise shows what the layer does to a disturbed image."
    )


def answer_json(exhibit: Exhibit, shown: Shown, options: DemoOptions, given: tuple[int, int]) -> dict[str, Any]:
    """The whole answer; `given` is the width and height of the file."""
    clean, attacked = shown.clean, shown.attacked
    change = attacked.image - clean.image
    factor = amplification(change[None]) if bool(change.any()) else 1
    height, width = clean.image.shape[-2:]
    everyone = {"plain": shown.plain, "defended": shown.defended}
    return {
        "image": {"width": width, "height": height, "given_width": given[0], "given_height": given[1]},
        "lambda": options.sparsity,
        "attack": {
            "name": options.attack,
            "threat": options.threat,
            "budget": budget_text(options.budget),
            "options": ATTACKS_SHOWN[options.attack],
            "linf": shown.linf,
            "dissimilarity": shown.dissimilarity if math.isfinite(shown.dissimilarity) else None,
        },
        "pictures": {
            "clean": data_uri(clean.image),
            "attacked": data_uri(attacked.image),
            "difference": data_uri(difference_image(attacked.image, clean.image, factor)),
            "projected": data_uri(attacked.seen),
            "projected_clean": data_uri(clean.seen),
        },
        "difference_factor": factor,
        "predictions": {
            who: {what: likely(row, exhibit.labels) for what, row in rows.items()} for who, rows in everyone.items()
        },
        "codes": {"clean": codes_json(clean), "attacked": codes_json(attacked)},
    }


def likely(probabilities: Probabilities, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """The `MOST_LIKELY` classes with their probabilities, the first first."""
    values, classes = probabilities.topk(min(MOST_LIKELY, len(probabilities)))
    named = labels or []
    return [
        {"class": c, "label": named[c] if c < len(named) else f"class {c}", "probability": value}
        for c, value in zip(classes.tolist(), values.tolist(), strict=True)
    ]


def codes_json(coded: Coded) -> dict[str, Any]:
    """The codes of one image: how sparse, of which stratum, and the filters with the largest sum of |z|."""
    use = coded.codes.abs().sum((1, 2))
    chosen = use.argsort(descending=True, stable=True)[: min(STRONGEST, int((use > 0).sum()))].tolist()
    tiles, largest = filter_tiles(coded.filters), coded.codes.abs().max()
    return {
        "stratum": coded.stratum,
        "margin": coded.margin,
        "atoms": coded.atoms,
        "codes": coded.codes.numel(),
        "psnr": coded.psnr,
        "strongest": [
            {
                "filter": k,
                "atoms": int((coded.codes[k] != 0).sum()),
                "tile": data_uri(tiles[k]),
                "map": map_uri(coded.codes[k], float(largest), coded.filters.shape[-1] // 2),
            }
            for k in chosen
        ],
    }


def map_uri(codes: Float[Tensor, "height width"], largest: float, middle: int) -> str:
    """A map of codes: red above zero, blue below, the more opaque the larger |z| over `largest`, nothing at zero.

    The smallest is `FAINTEST` opaque, so that it is seen. Each code is moved from the first pixel of its atom by
    `middle` to where the eye looks for it.
    """
    from PIL import Image

    moved = codes.detach().cpu().double().roll((middle, middle), (0, 1))
    colour = torch.where(moved[..., None] > 0, torch.tensor(ABOVE).double(), torch.tensor(BELOW).double())
    opacity = torch.where(moved == 0, 0.0, FAINTEST + (1 - FAINTEST) * (moved.abs() / largest).sqrt())[..., None]
    pixels = (torch.cat([colour, opacity], -1).clamp(0, 1) * 255).round().to(torch.uint8)
    file = io.BytesIO()
    Image.frombytes("RGBA", (codes.shape[1], codes.shape[0]), pixels.numpy().tobytes()).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
