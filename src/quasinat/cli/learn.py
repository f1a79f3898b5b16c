"""quasinat learn: the parts of the quasi-natural space, one by one or all at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from quasinat.artefact import file_digest
from quasinat.cli.bars import Bars
from quasinat.data.training import training_images
from quasinat.errors import InputError, UsageError
from quasinat.experiments.learn import (
    AutoencoderSettings,
    DictionarySettings,
    Learning,
    StrataSettings,
    open_learning,
)
from quasinat.layer_options import Normalise, check_options
from quasinat.parallel import leads, process_group
from quasinat.sparse_coding import Constraint, Dictionary
from quasinat.strata import Split, Strata, load_autoencoder, load_dictionaries, save_autoencoder, save_dictionaries

learn = typer.Typer(
    no_args_is_help=True,
    help="Learn the quasi-natural space from training images. Each file is written whole; Ctrl-C loses at most one "
    "pass, and the same command goes on.",
)

Data = Annotated[str, typer.Option(help="photographs (built in), cifar10 or folder; training images only.")]
Root = Annotated[Path | None, typer.Option(help="Where the images of cifar10 or folder are.")]
Size = Annotated[int | None, typer.Option(help="Side in pixels of a folder's images or of the photographs' patches.")]
Out = Annotated[Path, typer.Option(help="The file to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Learn again, from the start, where --out exists.")]
Seed = Annotated[int, typer.Option(help="Same seed, same numbers.")]
Noise = Annotated[float, typer.Option(help="Deviation of the Gaussian noise.")]
Width = Annotated[int, typer.Option(min=1, help="Channels of each stage.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes of the autoencoder.")]
Count = Annotated[int, typer.Option("--strata", min=1, help="M; the paper has 4, and 10 for ImageNet.")]
Neighbours = Annotated[int, typer.Option(min=1, help="k of the vote.")]
Components = Annotated[
    int, typer.Option(min=0, help="Principal components of the latents; 0 for the latents themselves.")
]
Filters = Annotated[int, typer.Option(min=1, max=512, help="K.")]
FilterSize = Annotated[int, typer.Option(min=3, max=16, help="S, in pixels.")]
Sparsity = Annotated[float, typer.Option("--lambda", help="The weight of the l1 term.")]
SplitOption = Annotated[str, typer.Option(help="What passes uncoded: tikhonov (low-pass), none (Eq. 2) or mid-grey.")]
ConstraintOption = Annotated[str, typer.Option(help="On the filters: joint, per-channel (Eq. 2) or at-most-one.")]
ZeroMean = Annotated[bool, typer.Option("--zero-mean", help="Filters of zero mean in each channel.")]
Passes = Annotated[int, typer.Option(min=0, help="Over the images, at most.")]
Tolerance = Annotated[float, typer.Option(help="Ends once a pass changes the held-out objective by less than this.")]
Learner = Annotated[str, typer.Option(help="auto, online, batch or consensus.")]
ImagesEach = Annotated[int | None, typer.Option(min=1, help="Images a dictionary at most; all by default.")]
HeldOut = Annotated[int, typer.Option(min=0, help="Images a dictionary whose objective is only watched.")]
NormaliseOption = Annotated[str, typer.Option(help="How T(x) is brought to [0, 1]: clip or max.")]
Refine = Annotated[int, typer.Option(min=0, help="Filter updates for each input image.")]
Universal = Annotated[bool, typer.Option("--universal", help="One dictionary for all images, no strata.")]


@contextmanager
def opened(data: str, root: Path | None, image_size: int | None, out: Path, overwrite: bool) -> Iterator[Learning]:
    """The learning of one file: what it leaves for a restart goes once the file is there."""
    options = {} if image_size is None else {"size": image_size}
    with process_group(), Bars() as bars:
        learning = open_learning(lambda: training_images(data, root, **options), out, bars, overwrite=overwrite)
        yield learning
        learning.finish()
        if leads():
            print(out)


@learn.command()
def autoencoder(
    out: Out,
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    noise: Noise = 0.15,
    width: Width = 32,
    epochs: Epochs = 10,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """The denoising autoencoder.

    Example:  quasinat learn autoencoder --data cifar10 --root DIR --out autoencoder.safetensors
    """
    with opened(data, root, image_size, out, overwrite) as learning:
        network = learning.autoencoder(AutoencoderSettings(noise, width, epochs, seed))
        save_autoencoder(network, out, network.card["provenance"])


@learn.command()
def strata(
    out: Out,
    autoencoder: Annotated[Path, typer.Option(help="File of the autoencoder.")],
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    strata: Count = 4,
    neighbours: Neighbours = 5,
    components: Components = 64,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """The strata: clusters of the latents, and the latents that vote.

    Example:  quasinat learn strata --autoencoder a.safetensors --data cifar10 --root DIR --out strata.safetensors
    """
    network = load_autoencoder(autoencoder)
    with opened(data, root, image_size, out, overwrite) as learning:
        fitted = learning.strata(StrataSettings(strata, neighbours, components or None, seed), network)
        fitted.save(out, fitted.card["provenance"])


@learn.command()
def dictionaries(
    out: Out,
    strata: Annotated[Path | None, typer.Option(help="File of the strata; none for one universal dictionary.")] = None,
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    filters: Filters = 64,
    size: FilterSize = 8,
    sparsity: Sparsity = 0.2,
    split: SplitOption = "tikhonov",
    constraint: ConstraintOption = "joint",
    zero_mean: ZeroMean = False,
    passes: Passes = 3,
    tolerance: Tolerance = 1e-3,
    learner: Learner = "auto",
    images_each: ImagesEach = None,
    held_out: HeldOut = 256,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """The dictionaries, one for each stratum.

    Example:  quasinat learn dictionaries --strata strata.safetensors --data cifar10 --root DIR --out d.safetensors
    """
    settings = _dictionary_settings(**{k: v for k, v in locals().items() if k in DictionarySettings.__annotations__})
    fitted = None if strata is None else Strata.load(strata)
    with opened(data, root, image_size, out, overwrite) as learning:
        learned = learning.dictionaries(settings, fitted)
        made = learning.provenance(dictionaries=asdict(settings), strata=_digest(strata))
        save_dictionaries(learned, out, {"provenance": made})


@learn.command()
def layer(
    out: Out,
    strata_file: Annotated[Path | None, typer.Option(help="Strata that are learned already.")] = None,
    dictionaries_file: Annotated[Path | None, typer.Option(help="Dictionaries that are learned already.")] = None,
    universal: Universal = False,
    data: Data = "photographs",
    root: Root = None,
    image_size: Size = None,
    noise: Noise = 0.15,
    width: Width = 32,
    epochs: Epochs = 10,
    strata: Count = 4,
    neighbours: Neighbours = 5,
    components: Components = 64,
    filters: Filters = 64,
    size: FilterSize = 8,
    sparsity: Sparsity = 0.2,
    split: SplitOption = "tikhonov",
    constraint: ConstraintOption = "joint",
    zero_mean: ZeroMean = False,
    passes: Passes = 3,
    tolerance: Tolerance = 1e-3,
    learner: Learner = "auto",
    images_each: ImagesEach = None,
    held_out: HeldOut = 256,
    normalise: NormaliseOption = "clip",
    refine: Refine = 0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """The whole layer: autoencoder, strata, dictionaries; parts that are there already are taken from their files.

    Example:  quasinat learn layer --data cifar10 --root DIR --lambda 0.2 --out cifar10.stl
    """
    settings = _dictionary_settings(**{k: v for k, v in locals().items() if k in DictionarySettings.__annotations__})
    check_options(settings.split, cast(Normalise, normalise), refine)
    if universal and strata_file:
        raise UsageError("--universal has no strata", "leave --strata-file out")
    if dictionaries_file and not (universal or strata_file):
        raise UsageError("--dictionaries-file comes without its strata", "name --strata-file, or pass --universal")
    fitted = None if strata_file is None else Strata.load(strata_file)
    learned: tuple[Dictionary, ...] | None = None
    if dictionaries_file:
        learned, settings = _learned_with(dictionaries_file, strata_file)
    with opened(data, root, image_size, out, overwrite) as learning:
        if fitted is None and not universal:
            network = learning.autoencoder(AutoencoderSettings(noise, width, epochs, seed))
            fitted = learning.strata(StrataSettings(strata, neighbours, components or None, seed), network)
        if learned is None:
            learned = learning.dictionaries(settings, fitted)
        made = learning.layer(fitted, learned, settings, normalise=cast(Normalise, normalise), refine=refine)
        made.save(out)


def _learned_with(path: Path, strata: Path | None) -> tuple[tuple[Dictionary, ...], DictionarySettings]:
    """The dictionaries of a file and how they were learned; refused where that was with other strata."""
    learned, card = load_dictionaries(path)
    try:
        theirs, settings = card["provenance"]["strata"], DictionarySettings(**card["provenance"]["dictionaries"])
    except (KeyError, TypeError):
        remedy = "pass one that `quasinat learn dictionaries` made"
        raise InputError(f"{path} does not say how it was learned", remedy) from None
    if theirs != _digest(strata):
        raise UsageError(f"{path} was learned with other strata", "name those with --strata-file")
    return learned, settings


def _dictionary_settings(**values: Any) -> DictionarySettings:
    return DictionarySettings(
        **values | {"split": cast(Split, values["split"]), "constraint": cast(Constraint, values["constraint"])}
    )


def _digest(path: Path | None) -> str | None:
    return None if path is None else file_digest(path)
