"""What the defences of the tables learn from training images, by kind: each a file, made once."""

from collections.abc import Callable
from pathlib import Path

import torch

from quasinat.arrays import Images
from quasinat.data.draws import generator_for
from quasinat.data.training import TrainingImages
from quasinat.defences import (
    build_patch_bank,
    learn_magnet,
    learn_patch_dictionary,
    learn_pixelcnn,
    save_magnet,
    save_patch_bank,
    save_patch_dictionary,
    save_pixelcnn,
)
from quasinat.experiments.learn import AutoencoderSettings, DictionarySettings, Learning, StrataSettings
from quasinat.experiments.progress import Progress
from quasinat.experiments.table_settings import TableSettings
from quasinat.training.checkpoint import digest

PIXELCNN_SIDE = 32  # pixels; each conditional sees 17 rows up and as many columns to the left
Learn = Callable[[Images, TableSettings, Path, Progress], None]


def _patch_bank(images: Images, settings: TableSettings, path: Path, progress: Progress) -> None:
    with progress.task("build the patch bank", 1) as report:
        bank = build_patch_bank(images, count=settings.patches, seed=settings.seed)
        save_patch_bank(bank, path, {"settings": settings.as_json()})
        report(1)


def _magnet(images: Images, settings: TableSettings, path: Path, progress: Progress) -> None:
    with progress.task("train MagNet's autoencoder", settings.magnet_epochs) as report:
        network = learn_magnet(
            images,
            epochs=settings.magnet_epochs,
            seed=settings.seed,
            checkpoint=path.with_suffix(".checkpoint"),
            on_epoch=lambda epoch, loss: report(epoch, f"loss {loss:.5f}"),
        )
    save_magnet(network, path, {"settings": settings.as_json()})
    path.with_suffix(".checkpoint").unlink(missing_ok=True)


def _pixelcnn(images: Images, settings: TableSettings, path: Path, progress: Progress) -> None:
    """On a crop of each image where they are larger than CIFAR-10's: the network reaches no farther."""
    generator = generator_for(settings.seed, "pixelcnn")
    drawn = torch.randperm(len(images), generator=generator)[: settings.pixelcnn_images]
    chosen = _cropped(images[drawn], PIXELCNN_SIDE, generator)
    with progress.task("train the PixelCNN", settings.pixelcnn_epochs) as report:
        network = learn_pixelcnn(
            chosen,
            epochs=settings.pixelcnn_epochs,
            seed=settings.seed,
            checkpoint=path.with_suffix(".checkpoint"),
            on_epoch=lambda epoch, loss: report(epoch, f"{loss:.3f} bits a dimension"),
        )
    save_pixelcnn(network, path, {"settings": settings.as_json()})
    path.with_suffix(".checkpoint").unlink(missing_ok=True)


def _cropped(images: Images, side: int, generator: torch.Generator) -> torch.Tensor:
    """One square of each image, at a place of its own; the whole image where it is no larger."""
    height, width = (min(side, length) for length in images.shape[2:])
    tops, lefts = (
        torch.randint(length - kept + 1, (len(images),), generator=generator).tolist()
        for length, kept in zip(images.shape[2:], (height, width), strict=True)
    )
    return torch.stack(
        [image[:, y : y + height, x : x + width] for image, y, x in zip(images, tops, lefts, strict=True)]
    )


def _patch_dictionary(images: Images, settings: TableSettings, path: Path, progress: Progress) -> None:
    with progress.task("choose D3's patches", settings.atoms) as report:
        dictionary = learn_patch_dictionary(
            images, size=settings.atoms, seed=settings.seed, on_progress=lambda done, _: report(done)
        )
    save_patch_dictionary(dictionary, path, {"settings": settings.as_json()})


def _layer(images: Images, settings: TableSettings, path: Path, progress: Progress, *, universal: bool = False) -> None:
    data = TrainingImages("the table's", images, digest(images))
    learning = Learning(data, path.with_name(path.name + ".learning"), progress)
    of_dictionaries = DictionarySettings(
        filters=settings.filters,
        size=settings.filter_size,
        sparsity=settings.sparsity,
        images_each=settings.dictionary_images,
        seed=settings.seed,
    )
    strata = None
    if not universal:
        network = learning.autoencoder(AutoencoderSettings(epochs=settings.autoencoder_epochs, seed=settings.seed))
        grouped = StrataSettings(count=settings.strata, components=min(64, len(images) // 4), seed=settings.seed)
        strata = learning.strata(grouped, network)
    learned = learning.dictionaries(of_dictionaries, strata)
    learning.layer(strata, learned, of_dictionaries).save(path)
    learning.finish()


def _universal_layer(images: Images, settings: TableSettings, path: Path, progress: Progress) -> None:
    _layer(images, settings, path, progress, universal=True)


LEARNED: dict[str, Learn] = {
    "patch bank": _patch_bank,
    "magnet": _magnet,
    "pixelcnn": _pixelcnn,
    "patch dictionary": _patch_dictionary,
    "layer": _layer,
    "universal layer": _universal_layer,
}
"""By kind. The classifier that pixel deflection's maps are of is the vanilla one and not learned here."""
