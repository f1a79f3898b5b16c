"""quasinat certify: accuracy that no perturbation of a given length can break, with a proof."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import nn


def certify(
    classifier: Annotated[Path, typer.Option(help="The classifier's file.")],
    out: Annotated[Path, typer.Option(help="Output folder; the folder of an unfinished run is continued.")],
    layer: Annotated[Path | None, typer.Option(help="The file of a layer to put in front of it.")] = None,
    compare: Annotated[list[Path] | None, typer.Option(help="A classifier without the layer; repeatable.")] = None,
    data: Annotated[str, typer.Option(help="photographs (built in), cifar10 or folder.")] = "photographs",
    root: Annotated[str | None, typer.Option(help="Where the images of cifar10 or folder are.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels: 32, 48 or 64; any for a folder.")] = None,
    colour: Annotated[bool | None, typer.Option("--colour", help="Photographs in colour, mean left in.")] = None,
    convert: Annotated[str | None, typer.Option(help="Convert a folder's images: rgb or grey.")] = None,
    images: Annotated[int, typer.Option(help="Test images, drawn at random.")] = 500,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise, in pixels of [0, 1].")] = 0.25,
    samples: Annotated[int, typer.Option(help="Noisy copies of each image that bound a probability.")] = 1000,
    selection: Annotated[int, typer.Option(help="Further copies that choose the class.")] = 100,
    alpha: Annotated[float, typer.Option(help="Probability that a certificate is wrong, at most.")] = 0.001,
    batch_size: Annotated[int, typer.Option(help="Noisy copies at once.")] = 250,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything: same seed, same numbers.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh where --out holds a run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print certify.json instead of the table.")] = False,
) -> None:
    """Certified accuracy by randomised smoothing, with the layer as the denoiser in front of the classifier.

    Every model is asked about the same noisy copies of the same test images. What is certified is the smoothed
    classifier: the model's most probable answer under noise.

    Writes certify.json, certify.npz (the outcome of each image), certify.md and certify.png.

    Example:  quasinat certify --classifier NET --layer LAYER.stl --data cifar10 --root DIR --out certified
    """
    from rich.console import Console

    from quasinat.cli.bars import Bars
    from quasinat.cli.show_strata import image_settings, keep_apart
    from quasinat.experiments.certify import CertifySettings, run_certify
    from quasinat.experiments.devices import device_named
    from quasinat.experiments.strata_report import image_set
    from quasinat.report.certified_curve import certified_terminal, write_certified

    settings = CertifySettings(
        sigma=sigma,
        samples=samples,
        selection=selection,
        alpha=alpha,
        images=images,
        batch_size=batch_size,
        seed=seed,
        device=device_named(device),
    )
    chosen = image_settings(data=data, root=root, image_size=image_size, colour=colour, convert=convert, seed=seed)
    keep_apart(out, classifier, layer, *(compare or []))
    rows = _models(classifier, layer, compare or [])
    with Bars() as bars:
        report = run_certify(rows, image_set(chosen), settings, out, progress=bars, overwrite=overwrite)
    write_certified(out, report)
    if as_json:
        print(json.dumps(report))
    else:
        console = Console()
        console.print(certified_terminal(report))
        console.print(f"picture: {out / 'certify.png'}", soft_wrap=True, highlight=False)


def _models(classifier: Path, layer: Path | None, compare: list[Path]) -> "dict[str, nn.Module]":
    """The models by the names of their files."""
    from quasinat.defended import Defended
    from quasinat.errors import UsageError
    from quasinat.layer import SparseTransformationLayer
    from quasinat.networks import load_classifier

    network = load_classifier(classifier)
    models: dict[str, nn.Module] = {}
    if layer is None:
        models[classifier.stem] = network
    else:
        models[f"{layer.stem} + {classifier.stem}"] = Defended(SparseTransformationLayer.load(layer), network)
    for path in compare:
        if path.stem in models:
            raise UsageError(f"two models are named {path.stem}", "name each file once, or rename one")
        models[path.stem] = load_classifier(path)
    return models
