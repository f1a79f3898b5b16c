"""What the table supports: each defence against no defence and against the controls, by their intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from quasinat.report.result_file import RETRAINED, Results, attack_columns, check, rows_by_key

Verdict = Literal["beats", "overlaps", "loses"]


@dataclass(frozen=True)
class Comparison:
    """One defence beside one rival under one attack.

    Attributes:
        row, label: the defence's key and label in the table.
        rival, rival_label: those of what it is compared with.
        column: the attack.
        verdict: `beats` or `loses` when the 95 % intervals do not meet, else `overlaps`.
        value, rival_value: the two accuracies.
    """

    row: str
    label: str
    rival: str
    rival_label: str
    column: str
    verdict: Verdict
    value: float
    rival_value: float


def verdict(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Verdict:
    """`beats` if our interval lies wholly above theirs, `loses` if wholly below, else `overlaps`."""
    if ours["low"] > theirs["high"]:
        return "beats"
    return "loses" if ours["high"] < theirs["low"] else "overlaps"


def claims(results: Results) -> list[Comparison]:
    """Every retrained defence, under every attack, against no defence and its two controls.

    The controls are another vanilla network, which shows how far the attack carries over at all, and the defence's own
    network on the untransformed image, which shows what the transformation adds. Cells that were not run are left out.

    Args:
        results: a run's result file, as `read_json` gives it.

    Raises:
        InputError: not a result file of this schema.
    """
    rows = rows_by_key(check(results))
    return [
        Comparison(
            row=ours["key"],
            label=ours["label"],
            rival=rival,
            rival_label=rows[rival]["label"],
            column=column,
            verdict=verdict(ours["cells"][column], rows[rival]["cells"][column]),
            value=ours["cells"][column]["value"],
            rival_value=rows[rival]["cells"][column]["value"],
        )
        for ours in rows.values()
        if ours["role"] == "defence" and ours["block"] == RETRAINED
        for rival in ("none", "control-vanilla", ours["key"].replace("retrained-", "control-", 1))
        if rival in rows
        for column in attack_columns(results)
        if column in ours["cells"] and column in rows[rival]["cells"]
    ]
