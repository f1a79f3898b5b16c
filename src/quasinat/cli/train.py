"""quasinat train: a classifier, plain, on T of the training images, or as one of the other defences."""

import json
from pathlib import Path
from typing import Annotated

import typer

from quasinat.cli.bars import Bars

EXAMPLE = """Ctrl-C loses at most one epoch, and the same command goes on.

Example:  quasinat train vanilla --data cifar10 --root DIR --out vanilla.safetensors

On T(x):  quasinat train retrained --layer LAYER.stl --data cifar10 --root DIR --out retrained.safetensors

Of others: quasinat train retrained --defence tvm --data cifar10 --root DIR --out on-tvm.safetensors

Madry:    quasinat train adversarial --budget linf:8/255 --data cifar10 --root DIR --out hardened.safetensors

FGSM:     quasinat train fgsm --budget dissimilarity:0.08 --data cifar10 --root DIR --out fgsm.safetensors

TRADES:   quasinat train trades --beta 6 --data cifar10 --root DIR --out trades.safetensors

Bounded:  quasinat train saturating --penalty 3 --data cifar10 --root DIR --out saturating.safetensors

Distilled: quasinat train distilled --temperature 100 --data cifar10 --root DIR --out distilled.safetensors

Encoded:  quasinat train vanilla --encoding thermometer --levels 16 --data cifar10 --root DIR --out bits.safetensors"""


def train(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="vanilla, retrained, adversarial, fgsm, trades, saturating or distilled: see below."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    data: Annotated[str | None, typer.Option(help="photographs (built in), cifar10 or folder.")] = None,
    root: Annotated[str | None, typer.Option(help="Where the images of cifar10 or folder are.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels: 32, 48 or 64; any for a folder.")] = None,
    colour: Annotated[bool | None, typer.Option("--colour", help="Photographs in colour, mean left in.")] = None,
    convert: Annotated[str | None, typer.Option(help="Convert a folder's images: rgb or grey.")] = None,
    train_per_class: Annotated[int | None, typer.Option(help="Training images of each class; all by default.")] = None,
    network: Annotated[str | None, typer.Option(help="vgg-small (the default) or vgg16.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images; 20 by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a batch; 128 by default.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The peak of one cycle; 0.004 by default.")] = None,
    layer: Annotated[Path | None, typer.Option(help="retrained: the file of the layer.")] = None,
    defence: Annotated[
        str | None, typer.Option(metavar="NAME[:OPTION=VALUE,...]", help="retrained: another defence than the layer.")
    ] = None,
    artefact: Annotated[Path | None, typer.Option(help="retrained: the file of what that defence has learned.")] = None,
    noise: Annotated[
        float | None, typer.Option(help="Deviation of Gaussian noise on the training images; of retrained, before T.")
    ] = None,
    copies: Annotated[int | None, typer.Option(help="retrained: of the training images, drawn or noisy; 1.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="adversarial: linf:8/255 (the default), l2:0.5 ...; trades: linf only; fgsm: dissimilarity:0.08 ..."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="adversarial: of PGD, 7; trades: of its ascent, 10.")] = None,
    share: Annotated[
        float | None, typer.Option(help="adversarial, fgsm: part of each batch that is attacked; 1 and 0.5.")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="trades: the weight of the disagreement; 6.")] = None,
    penalty: Annotated[float | None, typer.Option(help="saturating: the weight of unsaturated units; 3.")] = None,
    temperature: Annotated[float | None, typer.Option(help="distilled: of teacher and student; 100.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="vanilla, retrained, adversarial, fgsm: thermometer, or none (the default).")
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Of the thermometer, 2 to 256; 16 by default.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Of everything: same seed, same numbers.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train again, from the start, where --out is.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the loss of each epoch.")] = False,
) -> None:
    """Train a classifier and measure it on the clean test images, through the transformation if there is one.

    The file holds the weights and a card: data, settings, seed, versions, losses, test accuracy.
    """
    from quasinat.attacks.budget_text import budget_from_text
    from quasinat.experiments.train import TrainSettings, check_wanted
    from quasinat.experiments.train import train as run
    from quasinat.experiments.transforms import named_transform
    from quasinat.parallel import leads, process_group

    given = {
        "data": data,
        "root": root,
        "image_size": image_size,
        "colour": colour,
        "convert": convert,
        "train_per_class": train_per_class,
        "network": network,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "noise": noise,
        "copies": copies,
        "budget": None if budget is None else budget_from_text(budget),
        "steps": steps,
        "share": share,
        "beta": beta,
        "penalty": penalty,
        "temperature": temperature,
        "encoding": encoding,
        "levels": levels,
        "seed": seed,
    }
    settings = TrainSettings(kind, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    check_wanted(kind, "--layer" if layer else "--defence" if defence else None)
    transform = named_transform(layer, defence, artefact)
    with process_group(), Bars() as bars:
        trained = run(settings, out, transform=transform, device=device, progress=bars, overwrite=overwrite)
        speaks = leads()
    if not speaks:
        return
    if as_json:
        print(json.dumps({"file": str(out), "kind": kind, **trained.as_json()}))
    else:
        print(f"test accuracy  {trained.test}\nfile           {out}")


train.__doc__ = f"{train.__doc__}\n\n{EXAMPLE}"
