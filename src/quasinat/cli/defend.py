"""quasinat defend: the layer in front of somebody else's classifier."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def defend(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="FILE.pt2, FILE.safetensors of `train`, torchvision:NAME, hf:NAME, hf:FOLDER, mobilenet:FILE.",
        ),
    ],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Images at any depth, CIFAR-10, or shards of ours.")],
    layer: Annotated[Path, typer.Option(help="The file of the layer.")],
    out: Annotated[Path, typer.Option(help="Folder for card.json and card.md.")],
    count: Annotated[int, typer.Option(help="Images, drawn at random.")] = 200,
    size: Annotated[int | None, typer.Option(help="Side in pixels; what the classifier wants by default.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="M,M,M", help="Subtracted from pixels in [0, 1].")] = None,
    deviation: Annotated[str | None, typer.Option(metavar="D,D,D", help="What they are then divided by.")] = None,
    sparsity: Annotated[float | None, typer.Option("--lambda", help="Another lambda than the layer's.")] = None,
    attacked: Annotated[int, typer.Option(help="Images to attack by the true gradient; 0 for none.")] = 0,
    eps: Annotated[float, typer.Option(help="Radius of that attack in L-infinity, in 255ths.")] = 4.0,
    steps: Annotated[int, typer.Option(help="Of that attack.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the draw and the attack.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print card.json instead of the table.")] = False,
) -> None:
    """Put the layer in front of your own classifier, measure what that costs it, and write a card.

    The labels are known of CIFAR-10 and shards, and of folders of classes: by a file labels.csv beside them (columns
    wnid, class_index), by the classifier's names of its classes, or by their order where there are as many.

    A .pt2 is a program: run none that you do not trust. Of Hugging Face, safetensors alone are read.

    Example:  quasinat defend hf:microsoft/resnet-50 photos --layer imagenet.stl --attacked 32 --out card
    """
    from rich.console import Console
    from rich.table import Table

    from quasinat.cli.bars import Bars
    from quasinat.cli.show_strata import keep_apart
    from quasinat.experiments.defend import DefendSettings
    from quasinat.experiments.defend import defend as card_of
    from quasinat.experiments.devices import device_named
    from quasinat.experiments.own_images import own_images
    from quasinat.experiments.transforms import layer_transform
    from quasinat.files import write_json, write_text
    from quasinat.interop.own_model import own_model
    from quasinat.report.defend_card import card_caption, card_markdown, card_rows

    settings = DefendSettings(attacked, eps / 255, steps, batch_size, device_named(device), seed)
    keep_apart(out, layer)
    coded = layer_transform(layer, sparsity)
    network = own_model(model, mean=_numbers("--mean", mean), deviation=_numbers("--deviation", deviation))
    channels = coded.channels or 3
    shown = own_images(images, network, channels=channels, count=count, size=size, seed=seed)
    with Bars() as bars:
        card = card_of(network, coded.module, shown, settings, progress=bars)  # type: ignore[arg-type]
    card["model"]["name"], card["layer"]["file"], card["images"]["folder"] = _short(model), layer.name, images.name
    write_json(out / "card.json", card)
    write_text(out / "card.md", card_markdown(card))
    if as_json:
        print(json.dumps(card))
    else:
        console, (head, *rows) = Console(), card_rows(card)
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print(card_caption(card), highlight=False)
        console.print(f"card: {out / 'card.md'}", soft_wrap=True, highlight=False)
    for reason in shown.left_out.values():
        print(f"quasinat: left out: {reason}", file=sys.stderr)
    if shown.left_out:
        raise typer.Exit(1)


def _short(model: str) -> str:
    """The source without the folders that a file or a folder is in, which are nobody else's business."""
    kind, _, place = model.rpartition(":")
    return f"{kind}:{Path(place).name}".lstrip(":") if Path(place).exists() else model


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    from quasinat.errors import UsageError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r} is no row of numbers", f"as in {option} 0.485,0.456,0.406") from None
