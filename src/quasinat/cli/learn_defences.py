"""quasinat learn ...: what the other defences learn from training images, each as a file with its card."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from quasinat.cli.learn import Data, Out, Overwrite, Root, Seed, Size, learn, opened

Patches = Annotated[int, typer.Option(min=1, help="Patches in the bank.")]
Atoms = Annotated[int, typer.Option("--size", min=1, help="Patches in the dictionary, at most.")]
PatchSide = Annotated[int, typer.Option("--patch", min=3, max=32, help="Side of a patch, in pixels.")]
Selection = Annotated[str, typer.Option(help="greedy (diverse patches) or random.")]
Distance = Annotated[float, typer.Option(help="Of greedy: the least distance between two chosen patches.")]
Plan = Annotated[str, typer.Option(help="The autoencoder's plan: cifar, mnist-1 or mnist-2.")]
Passes = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the images.")]


def _epochs(learning: Any, title: str, epochs: int, unit: str, train: Callable[..., Any]) -> tuple[Any, list[float]]:
    """A training with its progress and its checkpoint; what it made, and the loss of each epoch."""
    losses: list[float] = []
    with learning.progress.task(title, epochs) as report:

        def on_epoch(epoch: int, loss: float) -> None:
            losses.append(loss)
            report(epoch, f"{unit} {loss:.5f}")

        made = train(
            learning.data.images, epochs=epochs, on_epoch=on_epoch, checkpoint=learning.work / "training.safetensors"
        )
    return made, losses


@learn.command()
def magnet(
    out: Out,
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    plan: Plan = "cifar",
    noise: Annotated[float | None, typer.Option(help="Deviation of the training noise; the plan's by default.")] = None,
    epochs: Passes = 20,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """MagNet's autoencoder (Meng & Chen 2017).

    Example:  quasinat learn magnet --data cifar10 --root DIR --out magnet.safetensors
    """
    from functools import partial

    from quasinat.defences import learn_magnet, save_magnet

    with opened(data, root, image_size, out, overwrite) as learning:
        train = partial(learn_magnet, plan=plan, noise=noise, seed=seed)
        network, losses = _epochs(learning, "train MagNet's autoencoder", epochs, "loss", train)
        settings = {"plan": plan, "noise": noise, "epochs": epochs, "seed": seed}
        save_magnet(network, out, learning.provenance(magnet=settings, losses=losses))


@learn.command()
def patch_bank(
    out: Out,
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    patches: Patches = 100_000,
    patch: PatchSide = 5,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """The bank of natural patches that quilting takes its own from (Guo et al. 2018).

    Example:  quasinat learn patch-bank --data cifar10 --root DIR --out patches.safetensors
    """
    from quasinat.defences import build_patch_bank, save_patch_bank

    with opened(data, root, image_size, out, overwrite) as learning:
        with learning.progress.task("build the patch bank", 1) as report:
            bank = build_patch_bank(learning.data.images, count=patches, size=patch, seed=seed)
            report(1)
        settings = {"patches": patches, "patch": patch, "seed": seed}
        save_patch_bank(bank, out, learning.provenance(patch_bank=settings))


@learn.command()
def patch_dictionary(
    out: Out,
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    size: Atoms = 10_000,
    patch: PatchSide = 8,
    select: Selection = "greedy",
    least_distance: Distance = 0.5,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """The dictionary of natural patches that D3 combines (Moosavi-Dezfooli et al. 2018).

    Example:  quasinat learn patch-dictionary --data cifar10 --root DIR --out d3.safetensors
    """
    from quasinat.defences import learn_patch_dictionary, save_patch_dictionary

    settings = {"size": size, "patch": patch, "select": select, "least_distance": least_distance, "seed": seed}
    with opened(data, root, image_size, out, overwrite) as learning:
        with learning.progress.task("choose D3's patches", size) as report:
            dictionary = learn_patch_dictionary(
                learning.data.images,
                on_progress=lambda done, _: report(done),
                **settings,  # type: ignore[arg-type]
            )
        save_patch_dictionary(dictionary, out, learning.provenance(patch_dictionary=settings))


@learn.command()
def pixelcnn(
    out: Out,
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    width: Annotated[int, typer.Option(min=1, help="Channels of each layer.")] = 32,
    blocks: Annotated[int, typer.Option(min=1, help="Residual layers.")] = 6,
    epochs: Passes = 5,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """PixelDefend's density of natural images, a PixelCNN (Song et al. 2018).

    Example:  quasinat learn pixelcnn --data cifar10 --root DIR --out pixelcnn.safetensors
    """
    from functools import partial

    from quasinat.defences import learn_pixelcnn, save_pixelcnn

    with opened(data, root, image_size, out, overwrite) as learning:
        train = partial(learn_pixelcnn, width=width, blocks=blocks, seed=seed)
        network, losses = _epochs(learning, "train the PixelCNN", epochs, "bits a dimension", train)
        settings = {"width": width, "blocks": blocks, "epochs": epochs, "seed": seed}
        save_pixelcnn(network, out, learning.provenance(pixelcnn=settings, losses=losses))
