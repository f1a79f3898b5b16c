"""quasinat evaluate: what a defence is worth against an attacker who knows it, with the checks of the evaluation."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quasinat.cli.bars import Bars
from quasinat.cli.show_strata import image_settings, keep_apart


def evaluate(
    classifier: Annotated[Path, typer.Option(help="The classifier behind the layer, as `train` writes it.")],
    layer: Annotated[Path, typer.Option(help="The layer, as `learn layer` writes it.")],
    out: Annotated[Path, typer.Option(help="Output folder; the folder of an unfinished run is continued.")],
    threat: Annotated[str, typer.Option(help="white-box: the attacker knows layer and classifier.")] = "white-box",
    base: Annotated[Path | None, typer.Option(help="The undefended network, for the table and for transfer.")] = None,
    adversarial: Annotated[Path | None, typer.Option(help="An adversarially trained network, for the table.")] = None,
    preset: Annotated[str, typer.Option(help="smoke (minutes), small or full (1,000 images).")] = "small",
    data: Annotated[str, typer.Option(help="photographs (built in), cifar10 or folder.")] = "photographs",
    root: Annotated[str | None, typer.Option(help="Where the images of cifar10 or folder are.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels: 32, 48 or 64; any for a folder.")] = None,
    colour: Annotated[bool | None, typer.Option("--colour", help="Photographs in colour, mean left in.")] = None,
    convert: Annotated[str | None, typer.Option(help="Convert a folder's images: rgb or grey.")] = None,
    images: Annotated[int | None, typer.Option(help="Test images, drawn at random.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="linf:8/255, l2:0.5 or dissimilarity:0.03; may be given several times.")
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="A row of the table, such as implicit or square; all by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of PGD and APGD.")] = None,
    restarts: Annotated[int | None, typer.Option(help="Of PGD and APGD.")] = None,
    clipping: Annotated[str | None, typer.Option(help="The clip's derivative: exact or straight-through.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: this share of the steps only; then run it without.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of everything: same seed, same numbers.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh where --out holds a run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print white-box.json instead of the tables.")] = False,
) -> None:
    """Attack a defended classifier with its true gradient and without, and check the evaluation itself.

    Worst case over all attacks, per image. A mandatory check that does not pass withholds the headline figure.

    Writes white-box.json, white-box.md, outcomes.npz and each image's adversarial example.

    Example:  quasinat evaluate --layer LAYER.stl --classifier RETRAINED.safetensors --base VANILLA.safetensors
    --adversarial AT.safetensors --data cifar10 --root DIR --out white-box
    """
    from rich.console import Console

    from quasinat.defended import Defended
    from quasinat.errors import UsageError, did_you_mean
    from quasinat.experiments.devices import device_named
    from quasinat.experiments.models import check_networks
    from quasinat.experiments.strata_report import image_set
    from quasinat.experiments.white_box import run_white_box
    from quasinat.experiments.white_box_settings import white_box_settings
    from quasinat.files import write_text
    from quasinat.layer import SparseTransformationLayer
    from quasinat.networks import load_classifier
    from quasinat.report.white_box_sheet import white_box_markdown, white_box_terminal

    if threat != "white-box":
        raise UsageError(f"there is no threat {threat!r}", did_you_mean(threat, ["white-box"]))
    shown = image_settings(data=data, root=root, image_size=image_size, colour=colour, convert=convert, seed=seed)
    settings = white_box_settings(
        preset,
        images=images,
        budgets=tuple(budget) if budget else None,
        attacks=tuple(attack) if attack else None,
        steps=steps,
        restarts=restarts,
        clipping=clipping,
        seed=seed,
    )
    keep_apart(out, layer, classifier, base, adversarial)
    place = device_named(device)
    files = {"--classifier": classifier, "--base": base, "--adversarial": adversarial}
    networks = {option: None if path is None else load_classifier(path) for option, path in files.items()}
    transform = SparseTransformationLayer.load(layer)
    dataset = image_set(shown)
    check_networks(networks, classes=len(dataset.classes), channels=dataset.test_images.shape[1])
    described = {
        "layer": {"file": layer.name, **transform.settings()},
        **{option.strip("-"): _card(path, networks[option]) for option, path in files.items()},
    }
    retrained = networks["--classifier"]
    assert retrained is not None
    with Bars() as bars:
        result = run_white_box(
            Defended(transform, retrained),
            dataset,
            settings,
            out,
            base=networks["--base"],
            adversarial=networks["--adversarial"],
            device=place,
            described=described,
            shard=share(shard),
            progress=bars,
            overwrite=overwrite,
        )
    if result is None:
        return
    write_text(out / "white-box.md", white_box_markdown(result))
    if as_json:
        print(json.dumps(result))
    else:
        console = Console()
        for table in white_box_terminal(result):
            console.print(table)
            console.print()


def _card(path: Path | None, network: object) -> dict[str, object] | None:
    """What the result file says of a classifier: its file and the card in it."""
    return None if path is None else {"file": path.name, **getattr(network, "card", {})}


def share(shard: str | None) -> tuple[int, int] | None:
    """`2/8` as (2, 8).

    Raises:
        UsageError: no such share.
    """
    from quasinat.errors import UsageError

    if shard is None:
        return None
    i, slash, n = shard.partition("/")
    short = len(shard) < 20  # Python reads no numbers of thousands of digits
    if not (slash and short and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise UsageError(f"--shard {shard} is no share", "write it as 1/4: the first of four")
    return int(i), int(n)
