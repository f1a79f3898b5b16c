"""quasinat export: a layer, or a classifier behind it, into an ONNX or torch.export file."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quasinat.export import Agreement
from quasinat.export import export as write
from quasinat.export.measured_on import images_in
from quasinat.interop import classifier_named
from quasinat.layer import SparseTransformationLayer

EXAMPLE = """The file takes images B C H W in [0, 1], of one size and any number, and holds no gradient of the layer.

Example:   quasinat export cifar10.stl --out cifar10.onnx --steps 160

Defended:  quasinat export cifar10.stl --model retrained.safetensors --out defended.onnx"""


def export(
    layer: Annotated[Path, typer.Argument(help="The file of the layer.")],
    out: Annotated[Path, typer.Option(help="The file to write: .onnx (the extra onnx) or .pt2.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A classifier of ours or, as in `defend`, your own: the output is then its logits.",
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 32,
    steps: Annotated[int, typer.Option(help="Iterations of the solver: more are slower and nearer to the layer.")] = 80,
    images: Annotated[
        Path | None, typer.Option(help="A folder of image files to measure on; random images unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card, as the file holds it.")] = False,
) -> None:
    """Write the layer with a fixed number of steps as one file, measured against the layer as it is."""
    given = SparseTransformationLayer.load(layer)
    made = write(
        given,
        out,
        classifier=None if model is None else classifier_named(model),
        steps=steps,
        image_size=size,
        images=None if images is None else images_in(images, given.filters.shape[2], size),
    )
    if as_json:
        print(json.dumps(made.card))
        return
    lines = {
        "written": str(made.path),
        "gives": made.card["gives"],
        "steps": str(steps),
        "measured on": f"{made.with_layer.images} images, {made.card['measured on']}",
        "against the layer": _words(made.with_layer),
        "against the module": _words(made.with_module),
    }
    print("\n".join(f"{name:<20}{line}" for name, line in lines.items()))


def _words(found: Agreement) -> str:
    label = "" if found.same_label is None else f", same label for {100 * found.same_label:.0f} %"
    return f"at most {found.largest:.2g} apart, {found.mean:.2g} in the mean{label}"


export.__doc__ = f"{export.__doc__}\n\n{EXAMPLE}"
