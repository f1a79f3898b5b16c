"""Certified accuracy: the table, in Markdown and for a terminal, and the curve over the L2 radius."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quasinat.files import write_atomically, write_text
from quasinat.report.wording import interval, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

INK, RULE = "#1a1a1a", "#d9d9d9"
COLOURS = ("#0b62a8", "#b8480a", "#2c7a4b", "#8b3a8f", "#7a6200", "#b02a50", "#3c6e8f", "#5d5d5d")  # as of the page
DASHES = ("-", "--", ":", "-.")
DOTS = 200  # an inch
LONGEST = 48  # letters of a name in the legend
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def certified_rows(report: dict[str, Any]) -> list[list[str]]:
    """The table of what `run_certify` found, its head first: a column for each model."""
    models = report["rows"]
    rows = [["", *(row["name"] for row in models)]]
    rows.append(["smoothed, clean", *(_share(row["smoothed"]) for row in models)])
    rows.append(["abstained", *(_share(row["abstained"]) for row in models)])
    for i, first in enumerate(models[0]["certified"]):
        rows.append([f"certified at {first['radius']:g}", *(_share(row["certified"][i]) for row in models)])
    return [*rows, ["average radius", *(f"{row['average_radius']:.3f}" for row in models)]]


def _share(share: dict[str, Any]) -> str:
    return f"{percent(share['value'])} {interval(share)}"


def certified_caption(report: dict[str, Any]) -> str:
    """What the table is of, in a paragraph."""
    settings = report["settings"]
    return (
        f"{report['data']['n']} test images of {report['data']['name']}, noise of σ = {settings['sigma']:g}, "
        f"{settings['selection']} noisy copies an image to choose the class and {settings['samples']} to bound its "
        f"probability; each radius is proven but for a probability of {settings['alpha']:g}, and none can exceed "
        f"{report['largest_radius']:.3f}. Radii are L2 distances in pixels of [0, 1]. Shares in %, with 95 % Wilson "
        "intervals. smoothed, clean: accuracy of the smoothed classifier. abstained: images without a certificate. "
        "certified at r: right, and proven so under every perturbation of length r or less."
    )


def certified_markdown(report: dict[str, Any]) -> str:
    """The table in Markdown, with what it is of."""
    head, *rows = certified_rows(report)
    lines = [[cell.replace("|", r"\|") for cell in head], ["---", *["---:"] * (len(head) - 1)], *rows]
    table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return f"# Certified accuracy\n\n{table}\n{certified_caption(report)}\n"


def certified_terminal(report: dict[str, Any]) -> "Table":
    """The table for a terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    head, *rows = certified_rows(report)
    caption = escape(certified_caption(report))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption=caption, caption_justify="left")
    for i, title in enumerate(head):
        table.add_column(escape(title), justify="right" if i else "left", overflow="fold", no_wrap=not i)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def certified_figure(report: dict[str, Any]) -> "Figure":
    """Certified accuracy over the L2 radius, a line for each model, its 95 % interval as a band."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    settings, models = report["settings"], report["rows"]
    with rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.7 + 0.22 * len(models)), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for i, row in enumerate(models):
            curve, colour = row["curve"], COLOURS[i % len(COLOURS)]
            value, low, high = ([100 * share for share in curve[name]] for name in ("value", "low", "high"))
            # Between two points the lower one is drawn: nothing is shown that is not proven.
            axes.fill_between(curve["radius"], low, high, step="pre", color=colour, alpha=0.16, linewidth=0)
            dash = DASHES[i % len(DASHES)]
            axes.step(curve["radius"], value, dash, where="pre", color=colour, linewidth=1.6, label=_short(row["name"]))
        axes.set(xlabel="L2 radius, in pixels of [0, 1]", ylabel="certified accuracy (%)")
        axes.set_xlim(0, 1.03 * report["largest_radius"])
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_ylim(0, 100)
        axes.set_title(
            f"σ = {settings['sigma']:g}, {settings['samples']} samples, α = {settings['alpha']:g}, "
            f"{report['data']['n']} images of {report['data']['name']}",
            fontsize=9.5,
            loc="left",
            parse_math=False,
        )
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        legend = figure.legend(loc="outside lower left", ncols=1, fontsize=9.5)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def write_certified(folder: Path, report: dict[str, Any]) -> None:
    """Writes `certify.md` and `certify.png` into `folder`.

    Raises:
        OutputError: a file cannot be written.
    """
    from matplotlib import rc_context

    figure = certified_figure(report)

    def write(temporary: Path) -> None:
        with rc_context(STYLE):
            figure.savefig(temporary, format="png", dpi=DOTS)

    write_text(folder / "certify.md", certified_markdown(report))
    write_atomically(folder / "certify.png", write)
