"""From the evidence of a run to its result file: the table's rows, the trade-off curve, the attacks' true strengths."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from quasinat.arrays import Images, Labels, PerImageBool
from quasinat.batches import project
from quasinat.defended import Defended
from quasinat.evaluation import (
    accuracy_of,
    dissimilarity,
    largest_difference,
    outcomes,
    peak_memory,
    provenance,
    psnr,
)
from quasinat.experiments.columns import CLEAN
from quasinat.experiments.demo import LAYERS, Demo, Evidence
from quasinat.experiments.workspace import Step

SCHEMA = 1
TITLES = {"universal": "STL", "stratified": "STL (cluster)"}
Outcomes = dict[str, dict[str, PerImageBool]]


def judge(evidence: Evidence) -> Outcomes:
    """Per-image outcomes of every row of the table, by row key and column.

    The gray-box rows are judged on the same adversarial images, made on the vanilla classifier.
    """
    labels, sets = evidence.data.test_labels, evidence.sets
    rows: Outcomes = {
        "none": {column: outcomes(evidence.vanilla, images, labels) for column, images in sets.items()},
        "control-vanilla": {column: outcomes(evidence.control, images, labels) for column, images in sets.items()},
    }
    for name in LAYERS:
        retrained, seen = evidence.retrained[name], evidence.projected[name]
        rows[f"retrained-{name}"] = {column: outcomes(retrained, seen[column], labels) for column in sets}
        rows[f"control-{name}"] = {column: outcomes(retrained, images, labels) for column, images in sets.items()}
        rows[f"vanilla-{name}"] = {column: outcomes(evidence.vanilla, seen[column], labels) for column in sets}
        defended = Defended(evidence.layers[name], retrained)
        rows[f"white-box-{name}"] = {
            column: outcomes(defended, images, labels[: len(images)])
            for column, images in evidence.white_box[name].items()
        }
        rows[f"white-box-{name}"][CLEAN] = rows[f"retrained-{name}"][CLEAN][: _count(evidence.white_box[name])].clone()
    return rows


def _count(sets: dict[str, Tensor]) -> int:
    return len(next(iter(sets.values())))


def describe_rows() -> list[dict[str, str]]:
    """The table's rows in their order: key, block, label, and `role`: undefended, defence, control or white-box."""
    retrained, vanilla = "gray-box, retrained classifier", "gray-box, vanilla classifier"
    rows = [("none", "undefended", "No defence", "undefended")]
    rows += [(f"retrained-{name}", retrained, TITLES[name], "defence") for name in LAYERS]
    rows += [("control-vanilla", retrained, "control: another vanilla network", "control")]
    rows += [
        (f"control-{name}", retrained, f"control: {TITLES[name]}'s network, image not transformed", "control")
        for name in LAYERS
    ]
    rows += [(f"vanilla-{name}", vanilla, TITLES[name], "defence") for name in LAYERS]
    rows += [
        (f"white-box-{name}", "white-box", f"{TITLES[name]}, BPDA identity gradient", "white-box") for name in LAYERS
    ]
    return [dict(zip(("key", "block", "label", "role"), row, strict=True)) for row in rows]


def strength(images: Images, clean: Images) -> dict[str, float | None]:
    """What an attack really used, after clipping: mean L2-dissimilarity, L-infinity and PSNR in dB.

    `moved` is the share of images that it changed at all (DeepFool and CW leave alone what is already misread).
    """
    largest = largest_difference(images, clean)
    return {
        "dissimilarity": float(dissimilarity(images, clean).mean()),
        "linf": float(largest.mean()),
        "psnr": mean_psnr(images, clean),
        "moved": float((largest > 0).float().mean()),
    }


def mean_psnr(images: Images, reference: Images) -> float | None:
    """The mean PSNR in dB over the images that differ from their reference; None where none does."""
    values = psnr(images, reference)
    return float(values[values.isfinite()].mean()) if bool(values.isfinite().any()) else None


def trade_off(demo: Demo, evidence: Evidence) -> list[dict[str, Any]]:
    """Figure 5 of the paper: accuracy of the vanilla classifier on T(x0) and T(x_adv) as lambda grows."""
    count = min(demo.settings.trade_off_images, len(evidence.data.test_images))
    clean, adversarial = evidence.sets[CLEAN][:count], evidence.sets["fgsm-0.08"][:count]
    labels: Labels = evidence.data.test_labels[:count]
    points = []
    with demo.progress.task("trade-off curve", len(demo.settings.trade_off)) as report:
        for done, sparsity in enumerate(demo.settings.trade_off):
            layer = evidence.layers["universal"].with_sparsity(sparsity)
            seen, defended = project(layer, clean), project(layer, adversarial)
            points.append(
                {
                    "sparsity": sparsity,
                    "clean": asdict(accuracy_of(outcomes(evidence.vanilla, seen, labels))),
                    "adversarial": asdict(accuracy_of(outcomes(evidence.vanilla, defended, labels))),
                    "psnr": mean_psnr(defended, clean),
                }
            )
            report(done + 1)
    return points


def results(demo: Demo, evidence: Evidence) -> dict[str, Any]:
    """The result file: settings, provenance, data, rows with accuracy, n and interval, strengths, PSNR, timings."""
    data, clean = evidence.data, evidence.sets[CLEAN]
    judged = judge(evidence)
    rows: list[dict[str, Any]] = [
        row | {"cells": {column: asdict(accuracy_of(hits)) for column, hits in judged[row["key"]].items()}}
        for row in describe_rows()
    ]
    for row in (row for row in rows if row["role"] == "white-box"):
        row.update(_beside_gray_box(row["key"].removeprefix("white-box-"), evidence, judged))

    def curve() -> Step:
        return {}, {"points": trade_off(demo, evidence)}

    def all_outcomes() -> Step:
        return {f"{row}/{column}": hits for row, cells in judged.items() for column, hits in cells.items()}, {}

    points = demo.workspace.step("trade-off", curve)[1]["points"]
    demo.workspace.step("outcomes", all_outcomes)
    return {
        "schema": SCHEMA,
        "settings": demo.settings.as_json(),
        "provenance": provenance(),
        "data": {
            "name": data.name,
            "description": data.description,
            "classes": list(data.classes),
            "train": len(data.train_images),
            "test": len(data.test_images),
            "shape": list(data.test_images.shape[1:]),
        },
        "columns": list(evidence.sets),
        "rows": rows,
        "strengths": {column: strength(images, clean) for column, images in evidence.sets.items() if column != CLEAN},
        "psnr": {
            "none": _psnr_by_column(evidence.sets, clean),
            **{name: _psnr_by_column(evidence.projected[name], clean) for name in LAYERS},
        },
        "strata": _strata_sizes(evidence),
        "trade_off": points,
        "curves": {
            name: [past["held_out"] or past["curve"] for past in evidence.layers[name].learned] for name in LAYERS
        },
        "seconds": demo.workspace.seconds,
        "peak_memory": peak_memory(),
    }


def _beside_gray_box(name: str, evidence: Evidence, judged: Outcomes) -> dict[str, Any]:
    """For a white-box row: the same defence's gray-box accuracy on the same images, and the attacks' strengths."""
    sets, gray = evidence.white_box[name], judged[f"retrained-{name}"]
    clean = evidence.sets[CLEAN]
    return {
        "gray_box": {column: asdict(accuracy_of(gray[column][: len(images)])) for column, images in sets.items()},
        "strengths": {column: strength(images, clean[: len(images)]) for column, images in sets.items()},
    }


def _psnr_by_column(sets: dict[str, Tensor], clean: Images) -> dict[str, float | None]:
    return {column: mean_psnr(images, clean) for column, images in sets.items()}


def _strata_sizes(evidence: Evidence) -> dict[str, Any]:
    """How many test images fall in each stratum, and how often an attack leaves the stratum as it was."""
    layer = evidence.layers["stratified"]
    members = {column: layer.stratum(images) for column, images in evidence.sets.items()}
    count = len(layer.filters)
    return {
        "sizes": torch.bincount(members[CLEAN], minlength=count).tolist(),
        "unchanged": {
            column: float((stratum == members[CLEAN]).float().mean())
            for column, stratum in members.items()
            if column != CLEAN
        },
    }
