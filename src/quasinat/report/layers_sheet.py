"""The filters of several layers on one picture, a block for each dictionary (the paper's figures 8 and 9)."""

import math
from collections.abc import Sequence

from quasinat.layer import SparseTransformationLayer
from quasinat.report.filter_sheet import (
    EDGE,
    GAP,
    LETTER,
    LINE,
    SHARPER,
    Picture,
    Sheet,
    as_colours,
    columns_for,
    roughness,
    tile_grid,
)
from quasinat.report.pictures import filter_tiles

TILE, SPACE = 32, 2  # of a filter's side and between filters, about, in units
WIDEST = 1500  # of a row of blocks
Block = tuple[str, Picture, int, int]


def filters_of_layers(layers: Sequence[SparseTransformationLayer]) -> Sheet:
    """The sheet: each dictionary under its K and S, each filter on its own scale around mid-grey, smoothest first."""
    rows: list[list[Block]] = [[]]
    for block in (block for layer in layers for block in _blocks(layer)):
        if rows[-1] and _width([*rows[-1], block]) > WIDEST:
            rows.append([])
        rows[-1].append(block)
    tall = [max(height for _, _, _, height in row) for row in rows]
    sheet = Sheet(2 * EDGE + max(map(_width, rows)), 2 * EDGE + sum(tall) + len(rows) * (LINE + GAP) - GAP)
    y = EDGE
    for row, height in zip(rows, tall, strict=True):
        x = EDGE
        for label, picture, across, down in row:
            room = _room(label, across)
            sheet.text(x, y, label, room=room)
            sheet.picture(x, y + LINE, picture, width=across, height=down)
            x += room + GAP
        y += LINE + height + GAP
    return sheet


def _blocks(layer: SparseTransformationLayer) -> list[Block]:
    """Of each dictionary: the label, the filters, and their width and height in units."""
    count, filters, _, size, _ = layer.filters.shape
    label = f"K = {filters}, S = {size}, λ = {float(layer.sparsity):g}"
    made = []
    for m, dictionary in enumerate(layer.filters):
        tiles = as_colours(filter_tiles(dictionary[roughness(dictionary).argsort(stable=True)]))
        grid = tile_grid(tiles, columns_for(filters), scale=SHARPER * math.ceil(TILE / size), gap=SHARPER * SPACE)
        text = label if count == 1 else f"{label}, stratum {m}"
        made.append((text, grid, grid.shape[2] // SHARPER, grid.shape[1] // SHARPER))
    return made


def _room(label: str, across: int) -> int:
    return max(across, LETTER * len(label))


def _width(row: Sequence[Block]) -> int:
    return sum(_room(label, across) + GAP for label, _, across, _ in row) - GAP
