"""quasinat show codes: what a layer makes of one image."""

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """Example:  quasinat show codes LAYER.stl photo.png --out codes.png"""


def codes(
    layer: Annotated[Path, typer.Argument(help="The layer's file.")],
    image: Annotated[Path, typer.Argument(help="An image file; it is converted to the layer's grey or colour.")],
    out: Annotated[Path, typer.Option(help="The picture: a .png, .svg or .pdf file.")],
    image_size: Annotated[int | None, typer.Option(help="Scale the image's short side to so many pixels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """One image: its bands, T(x), the difference, and where which atoms are active."""
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


codes.__doc__ = f"{codes.__doc__}\n\n{EXAMPLE}"
