"""A small result file and its pictures, built by hand: every interval is chosen, nothing is measured."""

from typing import Any

import torch
from torch import Tensor

from quasinat.report.result_file import Results

COLUMNS = ["clean", "fgsm-0.08", "bim-0.03", "cw-0.03"]


def cell(low: float, high: float, n: int = 100) -> dict[str, Any]:
    """An accuracy in the middle of its interval; in percent, for easy reading."""
    return {"value": (low + high) / 200, "n": n, "low": low / 100, "high": high / 100}


def row(key: str, block: str, label: str, role: str, *intervals: tuple[float, float], n: int = 100) -> dict[str, Any]:
    cells = {column: cell(*each, n=n) for column, each in zip(COLUMNS, intervals, strict=False)}
    return {"key": key, "block": block, "label": label, "role": role, "cells": cells}


def build_results(channels: int = 1, classes: int = 3, strata: int = 2) -> Results:
    """Against FGSM both defences beat everything; on BIM they overlap; on CW the universal one loses to the control."""
    retrained, vanilla = "gray-box, retrained classifier", "gray-box, vanilla classifier"
    rows = [
        row("none", "undefended", "No defence", "undefended", (80, 90), (5, 15), (20, 30), (10, 20)),
        row("retrained-universal", retrained, "STL", "defence", (60, 70), (50, 60), (30, 40), (21, 31)),
        row("retrained-stratified", retrained, "STL (cluster)", "defence", (80, 90), (61, 70), (35, 45), (50, 60)),
        row("control-vanilla", retrained, "control: another", "control", (78, 88), (20, 30), (25, 35), (40, 50)),
        row("control-universal", retrained, "control: STL's", "control", (50, 60), (10, 20), (15, 25), (21, 31)),
        row("control-stratified", retrained, "control: cluster's", "control", (50, 60), (10, 20), (15, 25), (20, 30)),
        row("vanilla-universal", vanilla, "STL", "defence", (40, 50), (20, 30), (20, 30), (20, 30)),
        row("vanilla-stratified", vanilla, "STL (cluster)", "defence", (40, 50), (20, 30), (20, 30), (20, 30)),
        row("white-box-universal", "white-box", "STL, BPDA", "white-box", (55, 75), (30, 45), (25, 35), n=20),
        row("white-box-stratified", "white-box", "STL (cluster), BPDA", "white-box", (70, 95), (71, 90), (5, 15), n=20),
    ]
    attacks = COLUMNS[1:]
    for white, defended in zip(rows[-2:], rows[1:3], strict=True):
        white["gray_box"] = {column: defended["cells"][column] for column in white["cells"]}
        white["strengths"] = {c: {"dissimilarity": 0.02, "linf": 0.01, "psnr": 33.0, "moved": 1.0} for c in attacks[:2]}
    quality = {column: 25.0 + i for i, column in enumerate(COLUMNS)}
    return {
        "schema": 1,
        "settings": {
            "data": "made up",
            "root": None,
            "trade_off": [0.1, 0.2],
            "filters": 5,
            "filter_size": 8,
            "colour": channels == 3,
            "sparsity": 0.2,
            "strata": strata,
            "network": "vgg-small",
        },
        "provenance": {"quasinat": "0.1.0", "code": "abc", "threads": 2},
        "data": {
            "name": "made up",
            "description": "Nothing real.",
            "classes": [f"class {i}" for i in range(classes)],
            "train": 60,
            "test": 100,
            "shape": [channels, 12, 12],
        },
        "columns": COLUMNS,
        "rows": rows,
        "strengths": {c: {"dissimilarity": 0.03, "linf": 0.02, "psnr": None, "moved": 0.0} for c in attacks},
        "psnr": {"none": quality | {"clean": None}, "universal": quality, "stratified": quality},
        "strata": {"sizes": [100 // strata] * strata, "unchanged": dict.fromkeys(attacks, 0.955)},
        "trade_off": [
            {"sparsity": s, "clean": cell(40, 60, 30), "adversarial": cell(30, 40, 30), "psnr": quality}
            for s, quality in ((0.1, 28.0), (0.2, None))
        ],
        "curves": {"universal": [[3.0, 2.5, 2.4]], "stratified": [[2.0 + m, 1.5 + m] for m in range(strata)]},
        "seconds": {"classifier-vanilla": 61.0, "projected-clean": 2.0, "attack-fgsm-0.08": 0.25, "pictures": 1.0},
        "peak_memory": 620_000_000,
    }


def build_pictures(channels: int = 1, classes: int = 3, strata: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    kinds = ("clean", "adversarial", "universal", "stratified")
    return {
        **{f"patches/{kind}": random(classes, channels, 12, 12) for kind in kinds},
        **{f"photograph/{name}/{kind}": random(channels, 20, 30) for name in ("cat", "cup") for kind in kinds},
        "filters/universal": random(1, 5, channels, 4, 4) - 0.5,
        "filters/stratified": random(strata, 5, channels, 4, 4) - 0.5,
        **{f"strata/{m}": random(7 if m else 0, channels, 12, 12) for m in range(strata)},
    }
