"""The figures as inline SVG that takes its colours from the page, so that one drawing serves light and dark."""

import re
from typing import Any

from quasinat.report.result_file import Results, layers
from quasinat.report.templates import style

# Colours that stand for the page's own; `inline` puts its CSS variables in their place.
INK, RULE = "#010203", "#040506"
SERIES = tuple(f"#0708{i:02x}" for i in range(8))
_CSS = {INK: "currentColor", RULE: "var(--rule)"} | {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)}
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.0,
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
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def trade_off_figure(results: Results) -> str | None:
    """Figure 5 of the paper: accuracy of the vanilla classifier on T(x0) and T(x_adv), below it PSNR, over lambda.

    The bands are 95 % intervals. None where the run has no such points.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    points = results["trade_off"]
    if not points:
        return None
    lambdas = [point["sparsity"] for point in points]
    with rc_context({**STYLE, "svg.hashsalt": "trade-off"}):
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
        above.set(ylabel="accuracy (%)", xscale="log")
        for key, label, marker, dash, colour in (
            ("clean", "T(x), clean", "o", "-", SERIES[0]),
            ("adversarial", "T(x), attacked", "s", "--", SERIES[1]),
        ):
            value, low, high = ([100 * point[key][name] for point in points] for name in ("value", "low", "high"))
            above.fill_between(lambdas, low, high, color=colour, alpha=0.16, linewidth=0)
            above.plot(lambdas, value, dash, marker=marker, markersize=4.5, color=colour, label=label)
        above.legend(loc="upper right", fontsize=9.5)
        quality = [float("nan") if point["psnr"] is None else point["psnr"] for point in points]
        below.plot(lambdas, quality, "-", marker="D", markersize=4, color=SERIES[2])
        below.set(ylabel="PSNR (dB)", xlabel="sparsity weight λ")
        below.set_xticks(lambdas, [f"{value:g}" for value in lambdas])
        below.set_xticks([], minor=True)
        grid(above, below)
        return inline(figure, "trade-off")


def learning_figure(results: Results) -> str | None:
    """The objective of Eq. (2) per image over the outer iterations, a line for each dictionary."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = [
        (f"{title}, stratum {m}" if len(each) > 1 else title, curve)
        for name, title in layers(results).items()
        for m, curve in enumerate(results["curves"].get(name) or [])
        for each in [results["curves"][name]]
        if curve
    ]
    if not curves:
        return None
    with rc_context({**STYLE, "svg.hashsalt": "learning"}):
        figure = Figure(figsize=(5.2, 3.5 + 0.22 * ((len(curves) + 1) // 2)), layout="constrained")
        axes = figure.subplots()
        for i, (label, curve) in enumerate(curves):
            dash, marker = ("-", "--", ":", "-.")[i // len(SERIES) % 4], "osD^vPX*"[i % 8]
            axes.plot(range(len(curve)), curve, dash, marker=marker, markersize=4, color=SERIES[i % 8], label=label)
        axes.set(xlabel="outer iteration", ylabel="objective per image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        grid(axes)
        return inline(figure, "learning")


def standalone(svg: str) -> str:
    """What `inline` made, as a file of its own: the page's colours of the light scheme, on white.

    They are written out, for programs other than browsers that know no variables.
    """
    colours = light_colours()
    look = "<style>svg { background: #ffffff; }</style>"
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head, _, rest = svg.partition(">")
    plain = re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], rest)
    return f"{head} {spaces}>{look}{plain.replace('currentColor', colours['--ink'])}"


def light_colours() -> dict[str, str]:
    """The variables of the page's light scheme."""
    first = re.search(r":root\s*{([^}]*)}", style())
    assert first is not None
    return dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-f]{6})", first[1]))


def grid(*axes: Any) -> None:
    for each in axes:
        each.grid(axis="y")
        each.set_axisbelow(True)


def inline(figure: Any, name: str) -> str:
    """The figure's `<svg>` alone, without namespaces; its ids are prefixed, its colours are the page's."""
    from io import StringIO

    text = StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r'(<svg[^>]*?)\s+width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", svg, count=1)
    for colour, css in _CSS.items():
        svg = svg.replace(colour, css)
    return svg
