"""The drawings of tables: a sweep has its usual value, and nothing covers anything else."""

import re
from itertools import pairwise
from typing import Any

import pytest

from quasinat.experiments.table_settings import TableSettings
from quasinat.report.table_figures import map_figure, set_apart, sweep_figure, swept, usual_values


def cell(value: float, **more: float) -> dict[str, Any]:
    return {"status": "done", "value": value, "low": value - 0.05, "high": value + 0.05, "n": 100, **more}


def result(table: str, sweeps: dict[str, Any], rows: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "table": table,
        "preset": "small",
        "settings": TableSettings().as_json(),
        "columns": ["clean", "fgsm-0.08"],
        "sweeps": sweeps,
        "rows": [{"key": key, "label": key.upper(), "cells": cells} for key, cells in rows.items()],
    } | more


def both(clean: float, attacked: float, psnr: float = 28.0) -> dict[str, Any]:
    return {"clean": cell(clean), "fgsm-0.08": cell(attacked, psnr=psnr)}


LONGER = result(
    "longer",
    {"training epochs": [[60, "training-epochs-60"]]},
    {"stl-cluster": both(0.7, 0.4), "training-epochs-60": both(0.8, 0.5)},
)


def ticks(svg: str) -> list[str]:
    """The texts along the panels, in order."""
    return re.findall(r"<text[^>]*>([^<]*)<", svg)


def test_a_sweep_has_the_row_of_its_usual_value() -> None:
    assert swept(LONGER) == {"training epochs": [(20, "stl-cluster"), (60, "training-epochs-60")]}
    drawn = sweep_figure(LONGER)
    assert drawn is not None
    texts = ticks(drawn)
    assert texts[: texts.index("training epochs")] == ["20", "default", "60"]
    assert "FillBetweenPolyCollection" in drawn  # a band for each column


def test_the_usual_value_is_the_settings() -> None:
    other = LONGER | {"settings": TableSettings(epochs=60).as_json()}
    assert swept(other) == {"training epochs": [(60, "training-epochs-60")]}
    assert usual_values(other) == {"training epochs": 60}
    ours = result(
        "figure7", {"M": [[2, "M-2"]]}, {"K-64": both(0.7, 0.4), "K-32": both(0.7, 0.4), "M-2": both(0.7, 0.4)}
    )
    assert swept(ours) == {"M": [(1, "K-64"), (2, "M-2")]}
    ours["settings"]["filters"] = 32
    assert swept(ours) == {"M": [(1, "K-32"), (2, "M-2")]}


def test_a_sweep_without_that_row_and_a_table_that_is_not_known_have_what_was_swept() -> None:
    alone = {**LONGER, "rows": LONGER["rows"][1:]}
    assert swept(alone) == {"training epochs": [(60, "training-epochs-60")]}
    assert swept(LONGER | {"table": "former"}) == {"training epochs": [(60, "training-epochs-60")]}
    drawn = sweep_figure(alone)
    assert drawn is not None
    assert drawn.count("LineCollection_") == 2  # of one point too there is an interval


def test_what_would_cover_each_other_is_set_apart() -> None:
    assert set_apart([1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert set_apart([0.0, 9.999, 10.0], 0.02) == pytest.approx([0.0, 9.8995, 10.0995])
    assert set_apart([0.0, 0.0], 0.02) == pytest.approx([-0.01, 0.01])
    crowd = set_apart([1.0, 1.0, 1.01, 1.05, 1.06, 2.0], 0.05)
    assert min(b - a for a, b in pairwise(crowd)) == pytest.approx(0.05)
    assert crowd[-1] == 2.0


def test_the_map_tells_two_rows_of_one_quality_apart() -> None:
    rows = {"tvm": both(0.5, 0.2, 24.0), "stl": both(0.6, 0.3, 28.46), "stl-cluster": both(0.6, 0.3, 28.47)}
    made = result("table6a", {}, rows, matched={"fgsm-0.08": "fgsm-0.08@0.28"})
    drawn = map_figure(made)
    assert drawn is not None
    for said in ("TVM, 24.0 dB", "STL, 28.5 dB", "STL-CLUSTER, 28.5 dB", "drawn side by side"):
        assert said in drawn
