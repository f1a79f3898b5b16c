"""quasinat show filters: every filter of a layer, or of several, in one picture."""

from pathlib import Path
from typing import Annotated

import typer


def filters(
    layers: Annotated[
        list[Path], typer.Argument(metavar="LAYER...", help="The layer's file; of several, side by side.")
    ],
    out: Annotated[Path, typer.Option(help="The picture: a .png, .svg or .pdf file.")],
    data: Annotated[str | None, typer.Option(help="Sort by use on photographs, cifar10 or folder.")] = None,
    root: Annotated[str | None, typer.Option(help="Where the images of cifar10 or folder are.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels: 32, 48 or 64; any for a folder.")] = None,
    colour: Annotated[bool | None, typer.Option("--colour", help="Photographs in colour, mean left in.")] = None,
    convert: Annotated[str | None, typer.Option(help="Convert a folder's images: rgb or grey.")] = None,
    images: Annotated[int, typer.Option(help="Test images to count the use on.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the draw of the images.")] = 0,
) -> None:
    """The filters of every dictionary, each on its own scale around mid-grey.

    The most used come first where images are given, else the smoothest.

    Example:  quasinat show filters LAYER.stl --out filters.png

    Several:  quasinat show filters tables/cifar10-small/learned/universal-layer-filters*.safetensors --out figure8.png

    By use:   quasinat show filters LAYER.stl --out filters.svg --data cifar10 --root DIR
    """
    from quasinat.cli.show_strata import image_settings
    from quasinat.errors import UsageError
    from quasinat.layer import SparseTransformationLayer
    from quasinat.report.filter_sheet import filters_of_layer, picture_format
    from quasinat.report.layers_sheet import filters_of_layers

    picture_format(out)
    given = {"root": root, "image_size": image_size, "colour": colour, "convert": convert}
    foreign = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if data is None and foreign:
        raise UsageError(f"{foreign[0]} is given without --data", "name the image set with --data, or leave it out")
    if len(layers) > 1 and data is not None:
        raise UsageError("the use of filters is counted for one layer at a time", "leave --data out, or name one layer")
    settings = None if data is None else image_settings(data=data, seed=seed, **given)
    loaded = [SparseTransformationLayer.load(layer) for layer in layers]
    if len(layers) > 1:
        filters_of_layers(sorted(loaded, key=lambda layer: layer.filters.shape[1:])).save(out)
    else:
        filters_of_layer(loaded[0], layers[0].name, settings, images).save(out)
    print(out)
