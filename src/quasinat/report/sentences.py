"""The claims in plain English: first what holds, then what does not, then what else a reader must know."""

from itertools import groupby
from typing import Any

from quasinat.report.claims import Comparison, claims, verdict
from quasinat.report.result_file import CLEAN, Results, attack_columns, check, layers, rows_by_key
from quasinat.report.wording import column_title, listed, percent, points

WHITE_BOX_LIMIT = (
    "This version attacks the defended classifier only through the identity gradient (BPDA), which is not the true "
    "gradient of the layer. The white-box rows are therefore an upper bound: an attacker with the true gradient may "
    "leave less. Robustness that was not attacked with the true gradient is not robustness."
)
_WARNING = (
    "Where the white-box attack is not clearly stronger than the one carried over from the vanilla network, that is a "
    "warning about the attack, whose gradient may mislead it; it is no evidence of robustness."
)


def sentences(results: Results) -> dict[str, list[str]]:
    """Plain sentences by heading, in the order in which they are to be read.

    Args:
        results: a run's result file, as `read_json` gives it.

    Raises:
        InputError: not a result file of this schema.
    """
    found = claims(check(results))
    return {
        "What holds": _holds(found),
        "What does not hold": _does_not_hold(found),
        "The white-box rows": _white_box(results),
        "The cost on clean images": _clean_cost(results),
        "One dictionary or several": _between_layers(results),
        "The strata under attack": _strata(results),
    }


def _holds(found: list[Comparison]) -> list[str]:
    said = [
        f"{label} beats “{rival}” outside the intervals on {_columns(group)}."
        for label, rival, group in _grouped([c for c in found if c.verdict == "beats"])
    ]
    return said or ["Nothing: under no attack does any comparison favour a defence outside the intervals."]


def _does_not_hold(found: list[Comparison]) -> list[str]:
    said = [
        f"{label} does worse than “{rival}”, outside the intervals, on {_columns(group)}."
        for label, rival, group in _grouped([c for c in found if c.verdict == "loses"])
    ]
    said += [
        f"{label} does not beat “{rival}” outside the intervals on {_columns(group)}."
        for label, rival, group in _grouped([c for c in found if c.verdict == "overlaps"])
    ]
    return said or ["Every comparison with no defence and with the controls holds outside the intervals."]


def _grouped(found: list[Comparison]) -> list[tuple[str, str, list[Comparison]]]:
    groups = groupby(found, key=lambda c: (c.label, c.rival_label))
    return [(label, rival, list(group)) for (label, rival), group in groups]


def _columns(group: list[Comparison]) -> str:
    return listed([_against(c.column, c.value, c.rival_value) for c in group])


def _against(column: str, ours: float, theirs: float) -> str:
    return f"{column_title(column)} ({percent(ours)} against {percent(theirs)} %)"


def _white_box(results: Results) -> list[str]:
    rows, said, warn = rows_by_key(results), [], False
    for name, label in layers(results).items():
        if f"white-box-{name}" not in rows:
            continue
        white, gray = rows[f"white-box-{name}"]["cells"], rows[f"white-box-{name}"]["gray_box"]
        both = [column for column in attack_columns(results) if column in white and column in gray]
        warn |= any(verdict(white[column], gray[column]) != "loses" for column in both)
        parts = [f"{column_title(column)} {_beside(white[column], gray[column])}" for column in both]
        missing = [column_title(column) for column in attack_columns(results) if column not in white]
        parts += [f"{listed(missing)} not run"] if missing else []
        counts = f"{_images(white, both)} images, the same in both" if both else "none"
        said.append(f"{label}, attacked through the layer ({counts}): {'; '.join(parts)}.")
    return [WHITE_BOX_LIMIT, *said, *([_WARNING] if warn else [])]


def _beside(white: dict[str, Any], gray: dict[str, Any]) -> str:
    relation = {"loses": "lower, outside the intervals", "overlaps": "the intervals overlap"}
    said = relation.get(verdict(white, gray), "higher, outside the intervals")
    return f"{percent(white['value'])} against {percent(gray['value'])} % gray-box, {said}"


def _images(cells: dict[str, Any], columns: list[str]) -> str:
    return listed(sorted({f"{cells[column]['n']}" for column in columns}))


def _clean_cost(results: Results) -> list[str]:
    rows = rows_by_key(results)
    if "none" not in rows or CLEAN not in rows["none"]["cells"]:
        return []
    none = rows["none"]["cells"][CLEAN]
    said = []
    for prefix, which in (("retrained", "with its retrained classifier"), ("vanilla", "before the vanilla classifier")):
        for name, label in layers(results).items():
            ours = rows.get(f"{prefix}-{name}", {"cells": {}})["cells"].get(CLEAN)
            if ours is not None:
                said.append(
                    f"{label} {which} reads {percent(ours['value'])} % of the clean images right, {_cost(ours, none)}."
                )
    return said


def _cost(ours: dict[str, float], none: dict[str, float]) -> str:
    difference = ours["value"] - none["value"]
    outside = "the intervals overlap" if verdict(ours, none) == "overlaps" else "outside the intervals"
    if difference == 0:
        return f"as many as without a defence ({percent(none['value'])} %)"
    side = "fewer" if difference < 0 else "more"
    return f"{points(difference)} {side} than without a defence ({percent(none['value'])} %; {outside})"


def _between_layers(results: Results) -> list[str]:
    (first, *others), rows = list(layers(results).items()) or [("", "")], rows_by_key(results)
    said = []
    for name, label in others:
        ours, theirs = rows[f"retrained-{name}"]["cells"], rows[f"retrained-{first[0]}"]["cells"]
        for verb, wanted in (("beats", "beats"), ("does worse than", "loses"), ("is not told apart from", "overlaps")):
            parts = [
                _against(column, ours[column]["value"], theirs[column]["value"])
                for column in results["columns"]
                if column in ours and column in theirs and verdict(ours[column], theirs[column]) == wanted
            ]
            if parts:
                where = "by" if wanted == "overlaps" else "outside"
                said.append(f"{label} {verb} {first[1]} {where} the intervals on {listed(parts)}.")
    return said


def _strata(results: Results) -> list[str]:
    unchanged = results["strata"]["unchanged"]
    if not unchanged:
        return []
    shares = [f"{percent(share)} % under {column_title(column)}" for column, share in unchanged.items()]
    return [f"Test images whose stratum an attack leaves as it was: {listed(shares)}."]
