"""Figures of a table's result file: accuracy over a parameter (figures 5 and 7), PSNR against accuracy (figure 6)."""

from collections.abc import Sequence
from typing import Any

from quasinat.experiments.table_spec import table_named, table_names
from quasinat.report.figures import SERIES, STYLE, grid, inline
from quasinat.report.table_content import Result, name_of

CLEAN = "clean"


def sweep_figure(result: Result) -> str | None:
    """Accuracy on T(x0) and T(x_adv) over each parameter, with 95 % intervals, as inline SVG; None without a sweep.

    Among the values is the parameter's usual one, which may be another row's of the table: see `swept`.

    Args:
        result: what `run_tables` wrote.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    cells = {row["key"]: row["cells"] for row in result["rows"]}
    columns, usual = result["columns"], usual_values(result)
    drawn = {
        axis: points
        for axis, given in swept(result).items()
        if (points := [(value, cells[key]) for value, key in given if _done(cells[key], columns)])
    }
    if not drawn:
        return None
    name = name_of(result)
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(1.4 + 3.4 * len(drawn), 3.6 + 0.2 * -(-len(columns) // 3)), layout="constrained")
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, (axis, points) in zip(panels, drawn.items(), strict=True):
            places = range(len(points))
            for i, column in enumerate(columns):
                value, low, high = ([100 * of[column][part] for _, of in points] for part in ("value", "low", "high"))
                if len(points) == 1:  # a band would have no width
                    axes.vlines(places, low, high, color=SERIES[i % 8], alpha=0.5, linewidth=2)
                axes.fill_between(places, low, high, color=SERIES[i % 8], alpha=0.16, linewidth=0)
                label = "T(x), clean" if column == CLEAN else f"T(x), {column}"
                axes.plot(
                    places, value, "-" if i == 0 else "--", marker="os^D"[i % 4], color=SERIES[i % 8], label=label
                )
            named = [f"{value:g}" + ("\ndefault" if value == usual.get(axis) else "") for value, _ in points]
            axes.set_xticks(list(places), named)
            axes.set_xlabel({"lambda": "sparsity weight λ"}.get(axis, axis))
            axes.margins(x=0.1)
            grid(axes)
        panels[0].set_ylabel("accuracy (%)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
        return inline(figure, name)


def swept(result: Result) -> dict[str, list[tuple[int | float, str]]]:
    """Of each axis the values and their rows, in order, with the usual value, wherever its row stands.

    Which row that is, the table as it is now says; a table that is not known any more has the values that were swept.
    """
    keys = {row["key"] for row in result["rows"]}
    defaults = _defaults(result)
    found = {}
    for axis, given in result.get("sweeps", {}).items():
        points = dict(given)
        value, key = defaults.get(axis, (None, None))
        if value is not None and key in keys:
            points.setdefault(value, key)
        found[axis] = sorted(points.items())
    return found


def usual_values(result: Result) -> dict[str, int | float]:
    """The value of each axis that a run has when nothing is swept."""
    return {axis: value for axis, (value, _) in _defaults(result).items()}


def _defaults(result: Result) -> dict[str, tuple[int | float, str]]:
    if not result.get("sweeps") or result["table"] not in table_names():
        return {}
    return {sweep.axis: sweep.default.among(result["settings"]) for sweep in table_named(result["table"]).sweeps}


def map_figure(result: Result) -> str | None:
    """PSNR against the interval from the lower to the higher of Acc(T(x0)) and Acc(T(x_adv)), of every transformation.

    The paper's figure 6, for the first attack of a gray-box table; None where fewer than two rows have a PSNR. Lines
    that would cover each other are drawn side by side, and the legend has each one's PSNR.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    attack = next((column for column in result["columns"] if column != CLEAN), None)
    points = [
        (row["cells"][attack]["psnr"], row["label"], *sorted(row["cells"][c]["value"] for c in (CLEAN, attack)))
        for row in result["rows"]
        if attack is not None and _done(row["cells"], [CLEAN, attack]) and "psnr" in row["cells"][attack]
    ]
    if len(points) < 2 or result.get("sweeps") or not result.get("matched"):
        return None
    name = f"map-{name_of(result)}"
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(6.4, 4.2 + 0.16 * len(points)), layout="constrained")
        axes = figure.subplots()
        points.sort()
        quality = [psnr for psnr, *_ in points]
        places = set_apart(quality)
        for i, (place, (psnr, title, low, high)) in enumerate(zip(places, points, strict=True)):
            marker, label = "osD^vPX*"[(i + i // 8) % 8], f"{title}, {psnr:.1f} dB"
            axes.plot([place] * 2, [100 * low, 100 * high], "-", marker=marker, color=SERIES[i % 8], label=label)
        beside = "" if places == quality else "; what would cover each other is drawn side by side"
        axes.set(xlabel=f"PSNR of T(x_adv) to x0 (dB){beside}", ylabel=f"accuracy (%), clean and {attack}")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)
        grid(axes)
        return inline(figure, name)


def set_apart(values: Sequence[float], share: float = 0.025) -> list[float]:
    """Sorted values moved as little as leaves each at least a share of their whole range beyond the one before.

    Values that come too close are put side by side about their common middle; with equal values only, the range is 1.
    """
    least = share * ((values[-1] - values[0]) or 1.0)
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _spread(groups[-1], least)[0] - _spread(groups[-2], least)[-1] < least * (1 - 1e-9):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [place for group in groups for place in _spread(group, least)]


def _spread(group: Sequence[float], least: float) -> list[float]:
    """As many places as a group has values, at that distance, about its mean."""
    mean = sum(group) / len(group)
    return [mean + (i - (len(group) - 1) / 2) * least for i in range(len(group))]


def _done(cells: Any, columns: Any) -> bool:
    return all(cells[column]["status"] == "done" for column in columns)
