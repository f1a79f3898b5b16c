"""One image as a layer sees it: its bands, its reconstruction and its sparse codes; the numbers and the picture."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from quasinat.arrays import Filters, Image
from quasinat.data.image_files import pixels, read_picture, scale_short_side
from quasinat.errors import InputError, UsageError
from quasinat.experiments.strata_report import check_fit, coded_with
from quasinat.layer import SparseTransformationLayer
from quasinat.report.filter_sheet import EDGE, GAP, LINE, Sheet, as_colours, fitted
from quasinat.report.pictures import amplification, difference_image, filter_tiles, psnr
from quasinat.report.wording import decibels
from quasinat.strata import split_bands

PANEL, ACROSS, MOST_USED = 192, 6, 10
MOST_DISCS = 20_000
LARGEST_DISC, COVERED = 120, 0.15  # square points, and the share of the picture that all discs may cover
_POSITIVE, _NEGATIVE = (0.70, 0.09, 0.12), (0.10, 0.30, 0.65)  # red and blue, told apart without colour vision
_DARK, _LIGHT = (0.08, 0.11, 0.25), 0.94
Codes3 = Float[Tensor, "filters height width"]


@dataclass(frozen=True)
class Coded:
    """An image and everything that the layer makes of it.

    Attributes:
        image, passed, coded: `C H W`; the image is passed + coded, see `split_bands`.
        rebuilt, seen: `C H W`; the coded band as its atoms have it, and T(x).
        codes: z, dense, `K H W`.
        filters: of its stratum, `K C S S`.
        stratum, margin: and how clearly it was chosen, in [0, 1]; None of a universal layer.
        objective, duality_gap, kkt_residual: of Eq. (2) on the coded band, see `Solution`.
        psnr: of T(x), in dB; None where it is the image.
        solver: what ran.
        split: what passed, see `split_bands`.
    """

    image: Image
    passed: Image
    coded: Image
    rebuilt: Image
    seen: Image
    codes: Codes3
    filters: Filters
    stratum: int | None
    margin: float | None
    objective: float
    duality_gap: float
    kkt_residual: float
    psnr: float | None
    solver: str
    split: str

    @property
    def atoms(self) -> int:
        """How many codes are not zero."""
        return int((self.codes != 0).sum())

    def facts(self) -> list[tuple[str, str]]:
        """What there is to say in numbers: names and values, in the order in which they are printed."""
        count = self.codes.numel()
        chosen = "none, one dictionary" if self.stratum is None else str(self.stratum)
        return [
            ("stratum", chosen),
            ("margin of the vote", "none" if self.margin is None else f"{self.margin:.2f}"),
            ("active atoms", f"{self.atoms:,} of {count:,}"),
            ("non-zero codes", f"{100 * self.atoms / count:.3f} %"),
            ("objective", f"{self.objective:.4f}"),
            ("duality gap", f"{self.duality_gap:.2g}"),
            ("KKT residual", f"{self.kkt_residual:.2g} lambda"),
            ("PSNR of T(x)", decibels(self.psnr) + ("" if self.psnr is None else " dB")),
            ("solver", self.solver),
        ]

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON holds them."""
        return {
            "stratum": self.stratum,
            "margin": self.margin,
            "atoms": self.atoms,
            "nonzero": self.atoms / self.codes.numel(),
            "objective": self.objective,
            "duality_gap": self.duality_gap,
            "kkt_residual": self.kkt_residual,
            "psnr": self.psnr,
            "solver": self.solver,
        }


def read_for(layer: SparseTransformationLayer, path: Path, short_side: int | None = None) -> Image:
    """An image file in the layer's number of channels, transparent parts over white; perhaps scaled.

    Raises:
        UsageError: a side below one.
        InputError: no readable image, or a layer that is neither grey nor RGB.
    """
    from PIL import Image as Pillow

    if short_side is not None and short_side < 1:
        raise UsageError(f"--image-size {short_side} is not above zero", "give a positive number of pixels")
    modes, channels = {1: "L", 3: "RGB"}, layer.filters.shape[2]
    if channels not in modes:
        raise InputError(f"the layer codes images of {channels} channels", "pass a layer of grey or RGB images")
    if not path.is_file():
        raise InputError(f"there is no file {path}", "check the path")
    picture = read_picture(path)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Pillow.alpha_composite(Pillow.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB").convert(modes[channels])
    if short_side is not None:
        picture = scale_short_side(picture, short_side)
    return pixels(picture).float().div_(255)


@torch.no_grad()
def code_image(layer: SparseTransformationLayer, image: Image) -> Coded:
    """Codes one image, `C H W` in [0, 1], as the layer does.

    Raises:
        InputError: the layer cannot code such an image.
    """
    images = image[None]
    check_fit(layer, images)
    stratum, margin = None, None
    if layer.strata is not None:
        members, margins = layer.strata.vote(images)
        stratum, margin = int(members[0]), float(margins[0])
    passed, coded = split_bands(images, layer.split)
    seen, solution, filters = coded_with(layer, images, stratum or 0)
    unfinished = "" if not solution.failures else ", not to its tolerance"
    return Coded(
        image=image,
        passed=passed[0],
        coded=coded[0],
        rebuilt=solution.reconstruction[0],
        seen=seen[0],
        codes=solution.codes.to_dense()[0],
        filters=filters,
        stratum=stratum,
        margin=margin,
        objective=float(solution.objective[0]),
        duality_gap=float(solution.duality_gap[0]),
        kkt_residual=float(solution.kkt_residual[0]),
        psnr=psnr(seen[0], image),
        solver=solution.solver + unfinished,
        split=layer.split,
    )


def code_sheet(coded: Coded, *, title: str = "") -> Sheet:
    """The picture: the bands, the reconstruction, T(x), what changed; the active atoms; the most used filters."""
    pitch = PANEL + GAP
    total = ACROSS * pitch - GAP
    small = (total - (MOST_USED - 1) * GAP // 2) // MOST_USED
    height, large, map_height = (fitted(coded.image, side)[2] for side in (PANEL, 2 * PANEL + GAP, small))
    tile = max(fitted(coded.image, small)[1:])
    first = EDGE + (LINE + 8 if title else 0)
    second = first + LINE + height + GAP
    third = second + max(LINE + large, 2 * LINE * len(coded.facts())) + GAP
    sheet = Sheet(total + 2 * EDGE, third + 2 * LINE + tile + 8 + map_height + EDGE)
    if title:
        sheet.text(EDGE, EDGE, title, room=total, bold=True)
    for i, (label, panel) in enumerate(_panels(coded)):
        sheet.text(EDGE + i * pitch, first, label, room=PANEL)
        _place(sheet, EDGE + i * pitch, first + LINE, panel, PANEL)
    _draw_atoms(sheet, EDGE, second, coded)
    _draw_total(sheet, EDGE + 2 * pitch, second, coded)
    for i, (name, value) in enumerate(coded.facts()):
        y = second + 2 * LINE * i
        sheet.text(EDGE + 4 * pitch, y, name, room=PANEL, soft=True, small=True)
        sheet.text(EDGE + 4 * pitch, y + LINE - 4, value, room=PANEL)
    _draw_most_used(sheet, EDGE, third, coded, small)
    return sheet


def _place(sheet: Sheet, x: int, y: int, image: Image, side: int) -> Any:
    picture, width, height = fitted(as_colours(image[None])[0], side)
    return sheet.picture(x, y, picture, width=width, height=height)


def _panels(coded: Coded) -> list[tuple[str, Image]]:
    band, change = (amplification(values[None]) for values in (coded.coded, coded.seen - coded.image))
    flat = torch.zeros_like(coded.coded)
    return [
        ("image x", coded.image),
        ("low-pass, uncoded" if coded.split == "tikhonov" else "uncoded", coded.passed.clamp(0, 1)),
        (f"coded band{_times(band)}", difference_image(coded.coded, flat, band)),
        (f"its reconstruction{_times(band)}", difference_image(coded.rebuilt, flat, band)),
        ("T(x)", coded.seen),
        (f"T(x) − x{_times(change)}", difference_image(coded.seen, coded.image, change)),
    ]


def _times(factor: int) -> str:
    return f", times {factor}" if factor > 1 else ""


def _draw_atoms(sheet: Sheet, x: int, y: int, coded: Coded) -> None:
    """A disc in the middle of each active atom, its area as |z|; red where z is positive, blue where negative."""
    side = 2 * PANEL + GAP
    axes = _place(sheet, x, y + LINE, 0.6 + 0.4 * coded.image, side)
    height, width = coded.image.shape[-2:]
    axes.images[0].set_extent((0, width, height, 0))  # in the image's own pixels, as it may have been resampled
    kinds, rows, columns = coded.codes.nonzero(as_tuple=True)
    which = "active atoms" if len(kinds) <= MOST_DISCS else f"the {MOST_DISCS:,} largest atoms"
    sheet.text(x, y, f"{which}, discs as |z|; red positive, blue negative", room=side)
    if len(kinds) == 0:
        return
    values = coded.codes[kinds, rows, columns]
    middle = coded.filters.shape[-1] / 2  # an atom's origin is its first pixel, and it wraps around the border
    order = values.abs().argsort(descending=True)[:MOST_DISCS]  # the small ones on top
    shares = values.abs()[order] / values.abs().max()
    _, *shown = fitted(coded.image, side)
    area = 0.72**2 * shown[0] * shown[1]  # in square points, as discs are measured
    largest = min(LARGEST_DISC, COVERED * area / float(shares.sum()))
    colours = [_POSITIVE if value > 0 else _NEGATIVE for value in values[order].tolist()]
    axes.scatter(
        ((columns + middle) % width)[order].numpy(),
        ((rows + middle) % height)[order].numpy(),
        s=(largest * shares).numpy(),
        c=colours,
        alpha=0.75,
        linewidths=0,
    )
    axes.set(xlim=(0, width), ylim=(height, 0))


def _draw_total(sheet: Sheet, x: int, y: int, coded: Coded) -> None:
    total = _centred(coded.codes, coded).abs().sum(0, keepdim=True)
    sheet.text(x, y, f"sum of |z| at each pixel, up to {float(total.max()):.2g}", room=2 * PANEL + GAP)
    _place_map(sheet, x, y + LINE, total, 2 * PANEL + GAP, (_DARK, _DARK))


def _draw_most_used(sheet: Sheet, x: int, y: int, coded: Coded, side: int) -> None:
    """The most used filters by their sum of |z|, each above its own map of codes, on its own scale."""
    use = coded.codes.abs().sum((1, 2))
    chosen = use.argsort(descending=True)[: min(MOST_USED, int((use > 0).sum()))]
    said = "the most used filters, by their sum of |z|, and where they are: red positive, blue negative"
    sheet.text(x, y, said if len(chosen) else "no filter is used", room=sheet.width - 2 * EDGE)
    tiles = filter_tiles(coded.filters)
    _, width, height = fitted(coded.image, side)
    for i, k in enumerate(chosen.tolist()):
        left, active = x + i * (side + GAP // 2), int((coded.codes[k] != 0).sum())
        atoms = "1 atom" if active == 1 else f"{active} atoms"
        sheet.text(left, y + LINE + 2, f"{k}: {atoms}", room=side, soft=True, small=True)
        _place(sheet, left, y + 2 * LINE, tiles[k], max(width, height))
        codes = _centred(coded.codes[k : k + 1], coded)
        _place_map(sheet, left, y + 2 * LINE + max(width, height) + 8, codes, side, (_POSITIVE, _NEGATIVE))


def _centred(codes: Codes3, coded: Coded) -> Codes3:
    """The codes moved from the first to the middle pixel of their atoms, where the eye looks for them."""
    return codes.roll((coded.filters.shape[-1] // 2,) * 2, (1, 2))


def _place_map(
    sheet: Sheet, x: int, y: int, values: Codes3, side: int, dark: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    """A map of codes, light grey at zero and `dark` where the largest are: the first colour above, the second below.

    Square roots, so that small ones are seen. Of a map too large for its place each square keeps its largest code.
    """
    _, width, height = fitted(values, side)
    square = math.ceil(max(values.shape[-2:]) / side)
    above, below = (F.max_pool2d((sign * values).clamp_min(0), square, ceil_mode=True) for sign in (1, -1))
    share = (torch.maximum(above, below) / values.abs().max().clamp_min(torch.finfo(values.dtype).tiny)).sqrt()
    first, second = (torch.tensor(each).to(values)[:, None, None] for each in dark)
    colours = torch.where(above >= below, first, second)
    sheet.picture(x, y, _LIGHT + share * (colours - _LIGHT), width=width, height=height)
