"""quasinat show codes: what a layer makes of one image."""

import json
from pathlib import Path
from typing import Annotated

import typer


def codes(
    layer: Annotated[Path, typer.Argument(metavar="LAYER", help="The layer's file.")],
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="An image file; it becomes grey or colour, as the layer is.")
    ],
    out: Annotated[Path, typer.Option(help="The picture: a .png, .svg or .pdf file.")],
    image_size: Annotated[int | None, typer.Option(help="Scale the image's short side to so many pixels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """One image: its bands, T(x), the difference, and where which atoms are active.

    Example:  quasinat show codes LAYER.stl photo.png --out codes.png
    """
    from quasinat.layer import SparseTransformationLayer
    from quasinat.report.code_sheet import code_image, code_sheet, read_for
    from quasinat.report.filter_sheet import picture_format

    picture_format(out)
    loaded = SparseTransformationLayer.load(layer)
    coded = code_image(loaded, read_for(loaded, image, image_size))
    code_sheet(coded, title=f"{image.name} as {layer.name} sees it").save(out)
    if as_json:
        print(json.dumps(coded.as_json()))
    else:
        print("\n".join(f"{name:<20}{value}" for name, value in coded.facts()))
