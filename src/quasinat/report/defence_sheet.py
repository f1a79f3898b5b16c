"""The picture of what every defence makes of the same adversarial images: a row a defence, a column an image."""

from typing import Any

from quasinat.experiments.defence_pictures import DefencePictures, Strip
from quasinat.report.filter_sheet import EDGE, LINE, Sheet, as_colours, fitted
from quasinat.report.pictures import psnr
from quasinat.report.wording import class_name

NAMES, SPACE = 200, 8  # the width of the column of names, and the gap between pictures
CLOSE = 16  # the height of a further line of a name
SMALLEST, LARGEST = 96, 128  # of a picture's side, in units


def defence_sheet(pictures: DefencePictures, *, title: str = "", note: str = "") -> Sheet:
    """The sheet: the adversarial images on top, the clean ones at the bottom, as in the paper's figures 3 and 4.

    Under each picture is the class that the classifier behind the defence sees in it, with a tick where that is right;
    beside each row the mean PSNR to the clean images.
    """
    side = min(max(pictures.strips[-1].images.shape[-1], SMALLEST), LARGEST)
    count, pitch = len(pictures.labels), side + SPACE
    heading = (LINE + 8 if title else 0) + (LINE + 8 if note else 0)
    above, below = _heights(pictures, side)
    tall = side + below + SPACE
    sheet = Sheet(2 * EDGE + NAMES + count * pitch - SPACE, 2 * EDGE + heading + above + len(pictures.strips) * tall)
    if title:
        sheet.text(EDGE, EDGE, title, room=sheet.width - 2 * EDGE, bold=True)
    if note:
        sheet.text(EDGE, EDGE + (LINE + 4 if title else 0), note, room=sheet.width - 2 * EDGE, soft=True, small=True)
    top = EDGE + heading
    for i, label in enumerate(pictures.labels):
        _paragraph(sheet, EDGE + NAMES + i * pitch, top, class_name(pictures.classes[label]), room=side)
    for row, strip in enumerate(pictures.strips):
        _draw_strip(sheet, top + above + row * tall, strip, pictures, side)
    return sheet


def _heights(pictures: DefencePictures, side: int) -> tuple[int, int]:
    """The room that the longest name of a class takes above the pictures, and below each."""
    blank = Sheet(side, side)
    heads = [class_name(pictures.classes[label]) for label in pictures.labels]
    feet = [f"✗ {class_name(pictures.classes[seen])}" for strip in pictures.strips for seen in strip.seen]
    above = max(len(blank.lines(words, room=side)) for words in heads)
    below = max(len(blank.lines(words, room=side, small=True)) for words in set(feet))
    return LINE + (above - 1) * CLOSE, LINE + (below - 1) * CLOSE


def _paragraph(sheet: Sheet, x: int, y: int, words: str, *, room: int, soft: bool = False, small: bool = False) -> None:
    for i, line in enumerate(sheet.lines(words, room=room, small=small)):
        sheet.text(x, y + i * CLOSE, line, room=room, soft=soft, small=small)


def described(pictures: DefencePictures) -> dict[str, Any]:
    """What the sheet says in numbers, as JSON holds it."""
    strips = [
        {
            "label": strip.label,
            "seen": [class_name(pictures.classes[seen]) for seen in strip.seen],
            "psnr": _psnr(strip, pictures),
        }
        for strip in pictures.strips
    ]
    return {
        "attack": pictures.column,
        "labels": [class_name(pictures.classes[i]) for i in pictures.labels],
        "strips": strips,
    }


def _draw_strip(sheet: Sheet, y: int, strip: Strip, pictures: DefencePictures, side: int) -> None:
    ends = strip in (pictures.strips[0], pictures.strips[-1])
    quality = _psnr(strip, pictures)
    right = sum(seen == label for seen, label in zip(strip.seen, pictures.labels, strict=True))
    facts = [f"{right} of {len(pictures.labels)} right", *([] if quality is None else [f"PSNR {quality:.1f} dB"])]
    sheet.text(EDGE, y, strip.label, room=NAMES - SPACE, bold=ends)
    for line, words in enumerate(facts):
        sheet.text(EDGE, y + (line + 1) * LINE, words, room=NAMES - SPACE, soft=True, small=True)
    for i, (image, seen, label) in enumerate(zip(strip.images, strip.seen, pictures.labels, strict=True)):
        x = EDGE + NAMES + i * (side + SPACE)
        picture, width, height = fitted(as_colours(image[None])[0], side)
        sheet.picture(x, y, picture, width=width, height=height)
        said = f"{'✓' if seen == label else '✗'} {class_name(pictures.classes[seen])}"
        _paragraph(sheet, x, y + side + 2, said, room=side, soft=seen == label, small=True)


def _psnr(strip: Strip, pictures: DefencePictures) -> float | None:
    """The mean over the images, in dB; None of the clean images, and of images of another size."""
    clean = pictures.strips[-1].images
    if strip.images.shape != clean.shape:
        return None
    values = [psnr(image, reference) for image, reference in zip(strip.images, clean, strict=True)]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
