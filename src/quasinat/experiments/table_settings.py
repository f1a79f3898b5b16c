"""How large a run of the tables is: images, networks, attacks, and what the defences learn from."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from quasinat.errors import UsageError, did_you_mean
from quasinat.networks import PLANS


@dataclass(frozen=True)
class TableSettings:
    """Everything that decides a table's numbers but the images and the code.

    Attributes:
        train, test: images drawn of each half, class by class.
        network, epochs: the classifiers; an adversarially trained one has `adversarial_epochs`.
        tuning_epochs: of a network that starts from given weights.
        bim_steps, cw_steps, cw_search_steps, cw_constant: of the attacks; the constant is where the search of c starts.
        white_box_images, white_box_steps, expectation: of the white-box table: test images, steps of PGD, and the draws
            that a randomised defence's gradient is averaged over.
        adversarial_steps: of PGD and TRADES in training.
        patches, atoms: of the patch bank and of D3's dictionary, at most.
        magnet_epochs, pixelcnn_epochs, pixelcnn_images: of what MagNet and PixelDefend learn.
        autoencoder_epochs, dictionary_images, strata, filters, filter_size, sparsity: of the layers.
        crops, votes: of the crop ensembles and of region-based classification.
        seed: of everything.
    """

    train: int = 10_000
    test: int = 1000
    network: str = "vgg-small"
    epochs: int = 20
    adversarial_epochs: int = 15
    tuning_epochs: int = 3
    bim_steps: int = 20
    cw_steps: int = 50
    cw_search_steps: int = 4
    cw_constant: float = 0.1
    white_box_images: int = 100
    white_box_steps: int = 20
    expectation: int = 5
    adversarial_steps: int = 5
    patches: int = 100_000
    atoms: int = 10_000
    magnet_epochs: int = 20
    pixelcnn_epochs: int = 8
    pixelcnn_images: int = 10_000
    autoencoder_epochs: int = 10
    dictionary_images: int = 500
    strata: int = 4
    filters: int = 64
    filter_size: int = 8
    sparsity: float = 0.2
    crops: int = 30
    votes: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.network not in PLANS:
            raise UsageError(f"unknown network {self.network!r}", did_you_mean(self.network, list(PLANS)))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("network", "seed") and not value > 0:
                raise UsageError(f"{field.name.replace('_', '-')} is {value}", "give a number above 0")

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value


ALL = 1_000_000  # images: more than any of the sets has
PRESETS: dict[str, TableSettings] = {
    "smoke": TableSettings(
        train=1000,
        test=200,
        epochs=15,
        adversarial_epochs=15,
        tuning_epochs=2,
        cw_steps=30,
        white_box_images=50,
        white_box_steps=10,
        expectation=3,
        adversarial_steps=3,
        patches=20_000,
        atoms=2000,
        magnet_epochs=30,
        pixelcnn_epochs=6,
        pixelcnn_images=1000,
        autoencoder_epochs=10,
        dictionary_images=200,
        filters=32,
        crops=10,
        votes=50,
    ),
    "small": TableSettings(),
    "medium": TableSettings(train=ALL, test=ALL),
    "full": TableSettings(
        train=ALL,
        test=ALL,
        network="vgg16",
        epochs=60,
        adversarial_epochs=30,
        tuning_epochs=15,
        bim_steps=50,
        cw_steps=100,
        cw_search_steps=6,
        white_box_images=1000,
        white_box_steps=100,
        expectation=10,
        adversarial_steps=7,
        patches=1_000_000,
        atoms=10_000,
        magnet_epochs=60,
        pixelcnn_epochs=30,
        pixelcnn_images=50_000,
        autoencoder_epochs=40,
        dictionary_images=2000,
        votes=1000,
    ),
}
"""On two cores `smoke` takes minutes a row, `small` hours a table, and `medium`, all images there are, a day or more;
`full`, all images and VGG-16, wants a GPU. Of ImageNet's 1000 classes there is a limit in `table_images`."""


def table_settings(preset: str) -> TableSettings:
    """The preset of that name.

    Raises:
        UsageError: there is none; names the closest.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}", did_you_mean(preset, list(PRESETS)))
    return PRESETS[preset]
