"""The certified accuracy's table and curve say what the result file holds, and no text lies over another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pillow
from rich.console import Console

from quasinat.evaluation import Certificates
from quasinat.experiments.certify import CertifySettings, row_report
from quasinat.report.certified_curve import (
    certified_caption,
    certified_figure,
    certified_markdown,
    certified_rows,
    certified_terminal,
    write_certified,
)


def report_of(*names: str) -> dict[str, Any]:
    """Ten images, of which the first model has a radius of 0.1, 0.2, 0.3 and so on, each next one half of it."""
    settings = CertifySettings(images=10)
    labels = torch.zeros(10, dtype=torch.int64)
    rows = []
    for i, name in enumerate(names):
        radii = (torch.arange(1, 11, dtype=torch.float64) / 10 / 2**i).clamp(max=0.6)
        proven = Certificates(labels, radii, torch.zeros(10, dtype=torch.bool))
        counts = torch.tensor([[100, 0]]).expand(10, 2)
        rows.append({"name": name, **row_report(proven, counts, labels, settings)})
    return {
        "schema": 1,
        "settings": {"sigma": 0.25, "samples": 1000, "selection": 100, "alpha": 0.001},
        "data": {"name": "cifar10", "n": 10},
        "largest_radius": 0.615,
        "rows": rows,
    }


@pytest.fixture
def report() -> dict[str, Any]:
    return report_of("layer + net", "net")


def test_the_table_holds_every_share_with_its_interval(report: dict[str, Any]) -> None:
    head, *rows = certified_rows(report)
    assert head == ["", "layer + net", "net"]
    cells = {title: values for title, *values in rows}
    assert cells["smoothed, clean"] == ["100.0 [72.2, 100.0]"] * 2
    assert cells["abstained"] == ["0.0 [0.0, 27.8]"] * 2
    assert [title for title in cells if title.startswith("certified")] == [
        f"certified at {radius}" for radius in ("0", "0.125", "0.25", "0.375", "0.5")
    ]
    assert [cell.split()[0] for cell in cells["certified at 0.25"]] == ["80.0", "50.0"]
    assert cells["average radius"] == ["0.450", "0.275"]


def test_markdown_and_terminal_show_the_same_cells(report: dict[str, Any]) -> None:
    report["rows"][1]["name"] = "a|b [red]"
    text = certified_markdown(report)
    assert r"|  | layer + net | a\|b [red] |" in text
    assert certified_caption(report) in text
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(certified_terminal(report))
    shown = console.export_text()
    console.file.close()
    assert "a|b [red]" in shown
    for line in certified_rows(report)[1:]:
        assert all(cell in shown for cell in line), line
        assert "| " + " | ".join(line) + " |" in text
    said = certified_caption(report)
    assert all(part in said for part in ("10 test images", "σ = 0.25", "100 noisy", "1000", "0.001", "0.615"))


def test_the_curve_never_shows_more_than_is_proven(report: dict[str, Any]) -> None:
    (axes,) = certified_figure(report).axes
    assert [line.get_label() for line in axes.lines] == ["layer + net", "net"]
    for line, row in zip(axes.lines, report["rows"], strict=True):
        assert line.get_drawstyle() == "steps-pre"
        assert list(line.get_xdata()) == row["curve"]["radius"]
        assert list(line.get_ydata()) == [100 * share for share in row["curve"]["value"]]
    assert len(axes.collections) == 2
    radii, low = (report["rows"][0]["curve"][name] for name in ("radius", "low"))
    corners = axes.collections[0].get_paths()[0].vertices
    at = radii[50]
    lowest = min(y for x, y in corners if abs(x - at) < 1e-12)
    assert lowest == pytest.approx(100 * min(low[50], low[51]))


@pytest.mark.parametrize(
    "names",
    [
        ("net",),
        ("layer + net", "net"),
        tuple(f"{i}: a model with a name that $never$ seems to come to its end " * 2 for i in range(9)),
    ],
    ids=len,
)
def test_no_text_overlaps_another_or_leaves_the_picture(names: tuple[str, ...]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = certified_figure(report_of(*names))
    FigureCanvasAgg(figure).draw()
    (axes,), (legend,) = figure.axes, figure.legends
    texts = [*legend.get_texts(), axes.xaxis.label, axes.yaxis.label, axes._left_title]
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        texts += [label for place, label in ticks if limits[0] <= place <= limits[1]]  # the others are not drawn
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) > 9
    for i, one in enumerate(boxes):
        assert one.x0 >= 0 and one.y0 >= 0 and one.x1 <= figure.bbox.x1 and one.y1 <= figure.bbox.y1, one  # noqa: PT018
        assert not any(one.overlaps(other) for other in boxes[:i])
    assert axes.get_window_extent().height > 200


def test_the_files(report: dict[str, Any], tmp_path: Path) -> None:
    write_certified(tmp_path, report)
    assert (tmp_path / "certify.md").read_text() == certified_markdown(report)
    with Pillow.open(tmp_path / "certify.png") as picture:
        assert picture.width > 1000
    first = (tmp_path / "certify.png").read_bytes()
    write_certified(tmp_path, report)
    assert (tmp_path / "certify.png").read_bytes() == first
    assert {path.name for path in tmp_path.iterdir()} == {"certify.md", "certify.png"}
