"""Figures of a table's result file: accuracy over a parameter (figures 5 and 7), PSNR against accuracy (figure 6)."""

from typing import Any

from quasinat.report.figures import SERIES, STYLE, grid, inline
from quasinat.report.table_content import Result

CLEAN = "clean"


def sweep_figure(result: Result) -> str | None:
    """Accuracy on T(x0) and T(x_adv) over each parameter, with 95 % intervals, as inline SVG; None without a sweep.

    Args:
        result: what `run_tables` wrote.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    cells = {row["key"]: row["cells"] for row in result["rows"]}
    columns = result["columns"]
    drawn = {
        axis: points
        for axis, given in result.get("sweeps", {}).items()
        if (points := [(value, cells[key]) for value, key in given if _done(cells[key], columns)])
    }
    if not drawn:
        return None
    name = f"{result['table']}-{result['preset']}"
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(1.4 + 3.4 * len(drawn), 3.6), layout="constrained")
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, (axis, points) in zip(panels, drawn.items(), strict=True):
            places = range(len(points))
            for i, column in enumerate(columns):
                value, low, high = ([100 * of[column][part] for _, of in points] for part in ("value", "low", "high"))
                axes.fill_between(places, low, high, color=SERIES[i % 8], alpha=0.16, linewidth=0)
                label = "T(x), clean" if column == CLEAN else f"T(x), {column}"
                axes.plot(
                    places, value, "-" if i == 0 else "--", marker="os^D"[i % 4], color=SERIES[i % 8], label=label
                )
            axes.set_xticks(list(places), [f"{value:g}" for value, _ in points])
            axes.set_xlabel({"lambda": "sparsity weight λ"}.get(axis, axis))
            grid(axes)
        panels[0].set_ylabel("accuracy (%)")
        panels[0].legend(loc="best", fontsize=9)
        return inline(figure, name)


def map_figure(result: Result) -> str | None:
    """PSNR against the interval from the lower to the higher of Acc(T(x0)) and Acc(T(x_adv)), of every transformation.

    The paper's figure 6, for the first attack of a gray-box table; None where fewer than two rows have a PSNR.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    attack = next((column for column in result["columns"] if column != CLEAN), None)
    points = [
        (row["label"], row["cells"][attack]["psnr"], *sorted(row["cells"][c]["value"] for c in (CLEAN, attack)))
        for row in result["rows"]
        if attack is not None and _done(row["cells"], [CLEAN, attack]) and "psnr" in row["cells"][attack]
    ]
    if len(points) < 2 or result.get("sweeps") or not result.get("matched"):
        return None
    name = f"map-{result['table']}-{result['preset']}"
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(6.4, 4.2 + 0.16 * len(points)), layout="constrained")
        axes = figure.subplots()
        for i, (label, psnr, low, high) in enumerate(sorted(points, key=lambda point: point[1])):
            axes.plot([psnr, psnr], [100 * low, 100 * high], color=SERIES[i % 8], linewidth=1.2)
            marker = "osD^vPX*"[i // 8 % 8]
            axes.plot([psnr] * 2, [100 * low, 100 * high], marker, color=SERIES[i % 8], markersize=5, label=label)
        axes.set(xlabel="PSNR of T(x_adv) to x0 (dB)", ylabel=f"accuracy (%), clean and {attack}")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)
        grid(axes)
        return inline(figure, name)


def _done(cells: Any, columns: Any) -> bool:
    return all(cells[column]["status"] == "done" for column in columns)
