"""The filters of a layer as one picture, a labelled block for each stratum; and the sheet that pictures are set on."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Filters, Image, Images, PerImage
from quasinat.errors import UsageError, did_you_mean
from quasinat.experiments import DemoSettings
from quasinat.experiments.strata_report import BATCH, check_fit, coded_with, held_out, image_set
from quasinat.files import write_atomically
from quasinat.layer import SparseTransformationLayer
from quasinat.report.pictures import filter_tiles
from quasinat.report.wording import images_named

Picture = Float[Tensor, "channels _ _"]
SUFFIXES = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
INK, SOFT = "#1a1a1a", "#666666"
EDGE, LINE, GAP = 24, 20, 24  # of a sheet: its margin, the height of a line of text, the gap between blocks
LETTER, WORDS = 8, 300  # about the width of a letter, and the room that a block makes for its label
_UNITS, SHARPER = 100, 2  # units an inch; a bitmap has twice as many pixels
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sheet",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.usetex": False,
}
_DATES: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def picture_format(path: Path) -> str:
    """The format that the name of a picture asks for: png, svg or pdf.

    Raises:
        UsageError: another suffix, or none.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        remedy = did_you_mean(suffix, list(SUFFIXES)) if suffix else f"end its name in one of: {', '.join(SUFFIXES)}"
        raise UsageError(f"{path} is no kind of picture that can be written", remedy)
    return SUFFIXES[suffix]


@contextmanager
def _drawing() -> Iterator[None]:
    """The style of every sheet, whatever the user's; a letter that the font lacks is drawn as a box, in silence."""
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def _drawable(words: str) -> str:
    """The words in a line, each a letter's that a font may have."""
    return " ".join(words.encode("utf-8", "replace").decode().split())


class Sheet:
    """A white sheet of `width` x `height` units (a unit is a pixel at 100 an inch), its origin at the top left."""

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        with _drawing():
            self.figure = Figure(figsize=(width / _UNITS, height / _UNITS), dpi=_UNITS, facecolor="white")
            FigureCanvasAgg(self.figure)
        self._measuring = RendererAgg(1, 1, _UNITS)  # of words; nothing is drawn on it

    def text(
        self,
        x: int,
        y: int,
        words: str,
        *,
        room: int,
        bold: bool = False,
        soft: bool = False,
        small: bool = False,
    ) -> None:
        """A line of text, its top left at (x, y); words that do not fit in `room` units end in an ellipsis."""
        words = _drawable(words)
        with _drawing():
            line = self.figure.text(
                x / self.width,
                1 - y / self.height,
                words,
                parse_math=False,
                va="top",
                fontsize=8.5 if small else 10,
                fontweight="bold" if bold else "normal",
                color=SOFT if soft else INK,
            )
            while len(words) > 1 and self._width(line) > room:
                words = words.rstrip("…")[:-1].rstrip() + "…"
                line.set_text(words)

    def lines(self, words: str, *, room: int, small: bool = False) -> list[str]:
        """The lines that `text` has room for, broken between words; a word that is wider has one of its own."""
        made: list[str] = []
        with _drawing():
            line = self.figure.text(0, 0, "", parse_math=False, fontsize=8.5 if small else 10)
            for word in _drawable(words).split():
                line.set_text(f"{made[-1]} {word}" if made else word)
                if made and self._width(line) <= room:
                    made[-1] = line.get_text()
                else:
                    made.append(word)
            line.remove()
        return made

    def _width(self, line: Any) -> float:
        return float(line.get_window_extent(self._measuring).width)

    def picture(self, x: int, y: int, image: Image, *, width: int, height: int) -> Any:
        """An image in [0, 1] of whole pixels, on `width` x `height` units; returns its axes, in the image's pixels."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        with _drawing():
            axes = self.figure.add_axes(box)
            axes.set_axis_off()
            pixels = image.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).expand(-1, -1, 3).numpy()
            axes.imshow(pixels, interpolation="none", aspect="auto", extent=(0, image.shape[2], image.shape[1], 0))
        return axes

    def save(self, path: Path) -> None:
        """Writes it as PNG, SVG or PDF, as the suffix says; whole or not at all."""
        kind = picture_format(path)

        def write(temporary: Path) -> None:
            with _drawing():
                self.figure.savefig(temporary, format=kind, dpi=SHARPER * _UNITS, metadata=_DATES[kind])

        write_atomically(path, write)


def enlarged(image: Image, scale: int) -> Picture:
    """Every pixel as `scale` x `scale` pixels."""
    return image.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def fitted(image: Image, side: int) -> tuple[Picture, int, int]:
    """The image on at most `side` x `side` units, with that width and height.

    A small one is enlarged by a whole number of the bitmap's pixels; a larger one is resampled to the bitmap's.
    """
    height, width = image.shape[-2:]
    longest = max(height, width)
    scale = SHARPER * side // longest
    if scale >= SHARPER:
        scale -= scale % SHARPER if scale * height % SHARPER or scale * width % SHARPER else 0
        return image, scale * width // SHARPER, scale * height // SHARPER
    units = [max(1, round(side * length / longest)) for length in (width, height)]
    size = (SHARPER * units[1], SHARPER * units[0])
    image = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
    return image, units[0], units[1]


def columns_for(count: int) -> int:
    """How many columns hold `count` tiles in a block somewhat wider than high, with few places left empty."""
    root = math.sqrt(count)
    choice = range(math.ceil(root), max(1, math.floor(2 * root)) + 1)
    return min(choice, key=lambda columns: (-count % columns, abs(columns - 1.4 * root)), default=1)


def tile_grid(tiles: Images, columns: int, *, scale: int, gap: int) -> Picture:
    """Tiles in [0, 1] in rows on white, each pixel enlarged to `scale` x `scale`, with `gap` pixels between them."""
    count, channels, height, width = tiles.shape
    rows, height, width = math.ceil(count / columns), scale * height, scale * width
    canvas = tiles.new_ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = enlarged(tile, scale)
    return canvas


def roughness(filters: Filters) -> PerImage:
    """The energy of each filter's differences between neighbouring pixels over its own, `K`; 0 for a flat one."""
    differences = [filters.diff(dim=side).square().flatten(1).sum(1) for side in (2, 3)]
    energy = filters.square().flatten(1).sum(1)
    return sum(differences, torch.zeros_like(energy)) / energy.clamp_min(torch.finfo(filters.dtype).tiny)


def filter_use(layer: SparseTransformationLayer, images: Images) -> Float[Tensor, "strata filters"]:
    """The sum of |z| of each filter over the images of its stratum, `M K`."""
    members = layer.stratum(images)
    use = layer.filters.new_zeros(layer.filters.shape[:2])
    for m in range(len(layer.filters)):
        for batch in images[members == m].split(BATCH):
            if len(batch) == 0:
                continue
            codes = coded_with(layer, batch, m)[1].codes
            use[m].index_add_(0, codes.indices()[1], codes.values().abs())
    return use


def filter_sheet(
    filters: Float[Tensor, "strata filters channels size size"],
    *,
    title: str = "",
    note: str = "",
    labels: Sequence[str] | None = None,
    use: Float[Tensor, "strata filters"] | None = None,
) -> Sheet:
    """The filters of every dictionary, each on its own scale around mid-grey.

    Args:
        filters: `M K C S S`; of two or more than three channels the mean is shown.
        title, note: above them all, the note in a line of its own.
        labels: one a stratum; its number if none are given.
        use: how much each filter is used, `M K`: the most used first. Without it the smoothest come first.
    """
    count, size = filters.shape[1], filters.shape[-1]
    blocks = []
    for m, dictionary in enumerate(filters):
        order = roughness(dictionary).argsort(stable=True) if use is None else use[m].argsort(descending=True)
        blocks.append(as_colours(filter_tiles(dictionary[order])))
    tile = 72 if count <= 16 else 48 if count <= 128 else 32
    scale, columns = max(1, round(tile / size)), columns_for(count)
    gap = 3 if tile > 40 else 2
    labels = [f"stratum {m}" for m in range(len(filters))] if labels is None else labels
    width = max(columns * (scale * size + gap) - gap, min(WORDS, LETTER * max(map(len, labels))))
    height = math.ceil(count / columns) * (scale * size + gap) - gap
    across = min(columns_for(len(filters)), max(1, 2400 // (width + GAP)))
    down = math.ceil(len(filters) / across)
    heading = (LINE + 8 if title else 0) + (LINE if note else 0)
    sheet = Sheet(
        2 * EDGE + max(across * (width + GAP) - GAP, 480 if title or note else 0),
        2 * EDGE + heading + down * (height + LINE + GAP) - GAP,
    )
    if title:
        sheet.text(EDGE, EDGE, title, room=sheet.width - 2 * EDGE, bold=True)
    if note:
        sheet.text(EDGE, EDGE + (LINE if title else 0), note, room=sheet.width - 2 * EDGE, soft=True)
    for m, tiles in enumerate(blocks):
        x = EDGE + m % across * (width + GAP)
        y = EDGE + heading + m // across * (height + LINE + GAP)
        sheet.text(x, y, labels[m], room=width)
        grid = tile_grid(tiles, columns, scale=SHARPER * scale, gap=SHARPER * gap)
        sheet.picture(x, y + LINE, grid, width=grid.shape[2] // SHARPER, height=grid.shape[1] // SHARPER)
    return sheet


def filters_of_layer(
    layer: SparseTransformationLayer, name: str, settings: DemoSettings | None = None, images: int = 200
) -> Sheet:
    """The sheet of a layer's filters: by use on `images` test images of the settings' image set, else by roughness.

    Raises:
        QuasinatError: the images cannot be read, or the layer cannot code them.
    """
    count, filters, _, size, _ = layer.filters.shape
    use, order, counted = None, "smoothest first", [""] * count
    if settings is not None:
        data = image_set(settings)
        test, _ = held_out(data, images, settings.seed)
        check_fit(layer, test)
        use = filter_use(layer, test)
        order = f"most used first, on {len(test)} test images of {images_named(data.name, data.description)}"
        sizes = torch.bincount(layer.stratum(test), minlength=count).tolist()
        unused = (use == 0).sum(1).tolist()
        counted = [
            ("" if layer.strata is None else f": {images} images") + (f", {rest} unused" if images and rest else "")
            for images, rest in zip(sizes, unused, strict=True)
        ]
    which = "one dictionary" if count == 1 else f"{count} dictionaries"
    title = f"{name}: {which} of {filters} filters of {size} × {size} pixels"
    names = ["every image"] if layer.strata is None else [f"stratum {m}" for m in range(count)]
    labels = [name + said for name, said in zip(names, counted, strict=True)]
    return filter_sheet(layer.filters, title=title, note=order, labels=labels, use=use)


def as_colours(images: Images) -> Float[Tensor, "batch _ height width"]:
    """Grey or colour images as they are; of any other number of channels their mean."""
    return images if images.shape[1] in (1, 3) else images.mean(1, keepdim=True)
