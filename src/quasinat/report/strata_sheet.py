"""The strata of a layer: their table, in Markdown and for a terminal, and their images beside their filters."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from quasinat.arrays import Images, Latents, PerImageInt
from quasinat.data.draws import generator_for
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments.strata_report import strata_of
from quasinat.files import write_json, write_text
from quasinat.layer import SparseTransformationLayer
from quasinat.report.filter_sheet import EDGE, GAP, LINE, SHARPER, Sheet, as_colours, columns_for, filter_use, tile_grid
from quasinat.report.pictures import filter_tiles
from quasinat.report.wording import column_title, images_named, interval, percent

if TYPE_CHECKING:
    from rich.table import Table

NOT_GIVEN, NONE = "not given", "–"
ROWS, SAMPLES_WIDE = 2, 640  # of sample images beside the filters: at least so many rows, about so many units wide
Rows = list[list[str]]
Places = Int64[Tensor, "own"]
SAMPLES = ("typical", "random")


def most_typical(latents: Latents, members: PerImageInt, stratum: int) -> Places:
    """The places of a stratum's images, those nearest to its mean latent first."""
    own = (members == stratum).nonzero().flatten()
    centre = latents[own].mean(0, keepdim=True)
    return own[(latents[own] - centre).square().sum(1).argsort(stable=True)]


def at_random(members: PerImageInt, stratum: int, seed: int) -> Places:
    """The places of a stratum's images in a random order."""
    own = (members == stratum).nonzero().flatten()
    return own[torch.randperm(len(own), generator=generator_for(seed, f"samples of stratum {stratum}"))]


def strata_tables(report: dict[str, Any]) -> list[tuple[str, Rows]]:
    """Captions and tables, their titles first, of what `strata_report` found."""
    return [_by_stratum(report), _by_attack(report), _by_both(report)]


def _by_stratum(report: dict[str, Any]) -> tuple[str, Rows]:
    rows = [["stratum", "fit on", "test", "margin", "full", "own", "others", "universal"]]
    for name, part in _parts(report):
        own, others, universal = (part["psnr"][source] for source in ("own", "other", "universal"))
        sizes = [str(part["fit"]), str(part["test"]), _number(part["margin"], 2), _percentage(part["full_margin"])]
        compared = NOT_GIVEN if report["universal"] is None else _number(universal, 2)
        rows.append([name, *sizes, _number(own, 2), _number(others, 2), compared])
    caption = (
        "fit on: training images that the strata were made of. test: held-out images, of which everything else is. "
        "margin: of the vote, mean. full: share of unanimous votes, %. own, others, universal: mean PSNR of T(x), dB, "
        "with the stratum's dictionary, the other strata's (mean) and a universal one."
    )
    exact = report["all"]["test"] - (report["all"]["psnr"]["own"] or {"n": 0})["n"]
    return caption + (f" PSNR without {exact} images reproduced exactly." if exact else ""), rows


def _by_attack(report: dict[str, Any]) -> tuple[str, Rows]:
    rows = [["attack", "accuracy", "margin", "unchanged", "n", "unchanged, full margin", "n"]]
    for column, part in report["columns"].items():
        line = [column_title(column), _percentage(part["right"]), _number(part["margin"], 2)]
        shares = (part.get("unchanged"), part.get("unchanged_full_margin"))
        rows.append([*line, *(text for share in shares for text in _with_interval(share))])
    caption = (
        "accuracy: of the attacked classifier, %. unchanged: share of images whose stratum is that of the clean image, "
        "%, with its 95 % Wilson interval; then of those whose clean vote was unanimous."
    )
    return caption, rows


def _by_both(report: dict[str, Any]) -> tuple[str, Rows]:
    attacks = list(report["all"]["unchanged"])
    rows = [["stratum", "n", *map(column_title, attacks)]]
    for name, part in _parts(report):
        cells = [_with_interval(part["unchanged"][attack])[0] for attack in attacks]
        rows.append([name, str(part["test"]), *cells])
    return "Share of the test images of each stratum that stay in it under attack, %.", rows


def _parts(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [*((str(part["stratum"]), part) for part in report["strata"]), ("all", report["all"])]


def _number(mean: dict[str, Any] | None, digits: int) -> str:
    return NONE if mean is None else f"{mean['value']:.{digits}f}"


def _percentage(share: dict[str, Any] | None) -> str:
    return NONE if share is None else percent(share["value"])


def _with_interval(share: dict[str, Any] | None) -> tuple[str, str]:
    return (NONE, NONE) if share is None else (f"{percent(share['value'])} {interval(share)}", str(share["n"]))


def strata_markdown(report: dict[str, Any]) -> str:
    """The tables in Markdown, with what they are of."""
    layer, data = report["layer"], report["data"]
    said = (
        f"# Strata\n\n{layer['dictionaries']} dictionaries of {layer['filters']} filters of {layer['filter_size']} × "
        f"{layer['filter_size']} pixels, λ = {layer['sparsity']:g}, split {layer['split']}. Measured on {data['n']} "
        f"test images of {_images(report)}; the attacks are on {report['settings']['network']}, "
        f"{_origin(report)}.\n"
    )
    for caption, (head, *rows) in strata_tables(report):
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        said += "\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines) + f"\n{caption}\n"
    return said


def _images(report: dict[str, Any]) -> str:
    return images_named(report["data"]["name"], report["data"].get("description", ""))


def _origin(report: dict[str, Any]) -> str:
    if report["model"] != "trained here":
        return f"with the weights of {report['model']}"
    return f"trained on {report['data']['train']} images for {report['settings']['epochs']} epochs"


def strata_terminal(report: dict[str, Any]) -> "list[Table]":
    """The first two tables for a terminal; 80 columns hold them."""
    from rich import box
    from rich.table import Table

    tables = []
    for caption, (head, *rows) in strata_tables(report)[:2]:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), caption=caption, caption_justify="left")
        for i, title in enumerate(head):
            table.add_column(title, justify="right" if i else "left", no_wrap=len(title) < 12)
        for row in rows:
            table.add_row(*(cell.replace(" [", "\n[").replace("[", r"\[") for cell in row))
        tables.append(table)
    return tables


def write_strata(
    folder: Path,
    report: dict[str, Any],
    layer: SparseTransformationLayer,
    images: Images,
    *,
    samples: str = "typical",
) -> None:
    """Writes `strata.json`, `strata.md` and `strata.png` into `folder`.

    Args:
        report: what `run_strata_report` returned, with the images that it was measured on.
        samples: which images are shown of each stratum: "typical", nearest to the mean latent first, or "random".

    Raises:
        UsageError: other samples, or a layer without strata.
        OutputError: a file cannot be written.
    """
    check_samples(samples)
    strata = strata_of(layer)
    latents, members = strata.latent(images), strata(images)
    seed, shown = report["settings"]["seed"], []
    for m in range(strata.count):
        typical = samples == "typical"
        shown.append(images[most_typical(latents, members, m) if typical else at_random(members, m, seed)])
    order = "most typical first" if samples == "typical" else "at random"
    labels = [
        f"stratum {part['stratum']}: {part['test']} of {len(images)} test images, {order}" for part in report["strata"]
    ]
    title = f"Test images of {_images(report)} and the filters of their stratum, most used first"
    use = filter_use(layer, images)
    sheet = strata_sheet(shown, layer.filters, title=title, note=unchanged_words(report), labels=labels, use=use)
    write_json(folder / "strata.json", report)
    write_text(folder / "strata.md", strata_markdown(report))
    sheet.save(folder / "strata.png")


def unchanged_words(report: dict[str, Any]) -> str:
    """How many of the images keep their stratum under each attack, in a line."""
    shares = report["all"]["unchanged"].items()
    return "Stratum unchanged: " + ", ".join(f"{column_title(name)} {_percentage(share)} %" for name, share in shares)


def check_samples(samples: str) -> None:
    """Raises a `UsageError` for an unknown kind of samples."""
    if samples not in SAMPLES:
        raise UsageError(f"unknown --samples {samples!r}", did_you_mean(samples, list(SAMPLES)))


def strata_sheet(
    images: list[Float[Tensor, "_ channels height width"]],
    filters: Float[Tensor, "strata filters channels size size"],
    *,
    title: str = "",
    note: str = "",
    labels: list[str] | None = None,
    use: Float[Tensor, "strata filters"] | None = None,
) -> Sheet:
    """Sample images of each stratum and, beside them, its filters: Figure 10 of the paper.

    Args:
        images: of each stratum its samples, in [0, 1], the first shown first; there may be none.
        filters: `M K C S S`, each drawn on its own scale around mid-grey.
        title, note: above them all, the note in a line of its own.
        labels: one a stratum; its number if none are given.
        use: how much each filter is used, `M K`: the most used first.
    """
    count, size = filters.shape[1], filters.shape[-1]
    side = max(images[m].shape[-1] for m in range(len(filters)))
    scale, tile, gap = max(1, 72 // side), max(1, (40 if count <= 64 else 24) // size), 2
    columns = columns_for(count)
    block = math.ceil(count / columns) * (tile * size + gap) - gap
    rows = max(ROWS, round((block + gap) / (scale * side + gap)))
    across = max(4, SAMPLES_WIDE // (scale * side))
    samples = across * (scale * side + gap) - gap
    dictionary = columns * (tile * size + gap) - gap
    height = max(block, rows * (scale * side + gap) - gap)
    heading = (LINE + 8 if title else 0) + (LINE if note else 0)
    sheet = Sheet(
        2 * EDGE + samples + 2 * GAP + dictionary, 2 * EDGE + heading + len(filters) * (LINE + height + GAP) - GAP
    )
    if title:
        sheet.text(EDGE, EDGE, title, room=sheet.width - 2 * EDGE, bold=True)
    if note:
        sheet.text(EDGE, EDGE + (LINE if title else 0), note, room=sheet.width - 2 * EDGE, soft=True)
    for m, dictionary_of in enumerate(filters):
        y = EDGE + heading + m * (LINE + height + GAP)
        label = f"stratum {m}" if labels is None else labels[m]
        sheet.text(EDGE, y, label, room=sheet.width - 2 * EDGE)
        order = torch.arange(count) if use is None else use[m].argsort(descending=True)
        shown = images[m][: rows * across]
        if len(shown):
            _draw(sheet, EDGE, y + LINE, shown, across, scale, gap)
        _draw(sheet, EDGE + samples + 2 * GAP, y + LINE, filter_tiles(dictionary_of[order]), columns, tile, gap)
    return sheet


def _draw(sheet: Sheet, x: int, y: int, tiles: Images, columns: int, scale: int, gap: int) -> None:
    grid = tile_grid(as_colours(tiles), min(columns, len(tiles)), scale=SHARPER * scale, gap=SHARPER * gap)
    sheet.picture(x, y, grid, width=grid.shape[2] // SHARPER, height=grid.shape[1] // SHARPER)
