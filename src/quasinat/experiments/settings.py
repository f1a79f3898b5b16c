"""The demonstration's settings: three presets and what a user may change in them."""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args

from quasinat.data import DATASETS
from quasinat.errors import UsageError, did_you_mean
from quasinat.networks import PLANS
from quasinat.strata import Split


@dataclass(frozen=True)
class DemoSettings:
    """Everything that decides the numbers of a run; two runs of equal settings and code give equal numbers.

    Attributes:
        data, root, image_size, colour, convert: the image set, see `quasinat.data.load`.
        train_per_class, test_per_class: images drawn of each class, at most.
        network, epochs: the classifier and its passes over the training images.
        autoencoder_images, autoencoder_epochs: training of the denoising autoencoder.
        strata, neighbours: M and the k of the vote.
        filters, filter_size, sparsity, split: K, S, lambda and the band that is coded.
        dictionary_images, dictionary_passes: training of each dictionary.
        tolerance: of the sparse coding solver.
        bim_steps, cw_steps, cw_search_steps, cw_constant: of the attacks; the constant is where the search of c starts.
        white_box_images, white_box_steps: of the white-box rows, whose every step solves a coding problem an image.
        trade_off, trade_off_images: the lambdas of the trade-off curve and its images.
        seed: of everything.
    """

    data: str = "photographs"
    root: str | None = None
    image_size: int = 32
    colour: bool = False
    convert: str | None = None
    train_per_class: int = 300
    test_per_class: int = 100
    network: str = "vgg-small"
    epochs: int = 8
    autoencoder_images: int = 1600
    autoencoder_epochs: int = 4
    strata: int = 4
    neighbours: int = 5
    filters: int = 32
    filter_size: int = 8
    sparsity: float = 0.2
    split: str = "tikhonov"
    dictionary_images: int = 128
    dictionary_passes: int = 4
    tolerance: float = 1e-2
    bim_steps: int = 20
    cw_steps: int = 20
    cw_search_steps: int = 3
    cw_constant: float = 0.1
    white_box_images: int = 200
    white_box_steps: int = 10
    trade_off: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    trade_off_images: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        counts = [field.name for field in fields(self) if field.type is int and field.name != "seed"]
        for name in [*counts, "sparsity", "tolerance"]:
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{_option(name)} {getattr(self, name)} is not above zero", "give a positive number")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is below zero", "give 0 or more")
        for name, known in (("network", list(PLANS)), ("split", list(get_args(Split))), ("data", list(DATASETS))):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"unknown {_option(name)} {getattr(self, name)!r}", did_you_mean(getattr(self, name), known)
                )
        self._check_belonging()

    def _check_belonging(self) -> None:
        """An option that the image set would ignore is refused rather than ignored."""
        foreign = {
            "--colour": self.colour and self.data != "photographs",
            "--convert": self.convert is not None and self.data != "folder",
            "--image-size": self.image_size != 32 and self.data == "cifar10",
        }
        for option, given in foreign.items():
            if given:
                raise UsageError(f"{option} is no option of the image set {self.data!r}", "leave it out")

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return value


def _option(name: str) -> str:
    return "--lambda" if name == "sparsity" else "--" + name.replace("_", "-")


PRESETS: dict[str, DemoSettings] = {
    "tiny": DemoSettings(
        train_per_class=60,
        test_per_class=12,
        epochs=8,
        autoencoder_images=300,
        autoencoder_epochs=3,
        filters=12,
        dictionary_images=32,
        dictionary_passes=3,
        bim_steps=10,
        cw_steps=20,
        white_box_images=20,
        white_box_steps=5,
        trade_off=(0.1, 0.2, 0.4),
        trade_off_images=30,
    ),
    "small": DemoSettings(),
    "full": DemoSettings(
        train_per_class=5000,
        test_per_class=1000,
        network="vgg16",
        epochs=40,
        autoencoder_images=50_000,
        autoencoder_epochs=20,
        filters=64,
        dictionary_images=500,
        dictionary_passes=20,
        tolerance=5e-3,
        cw_steps=200,
        cw_search_steps=9,
        cw_constant=1e-3,
        white_box_images=1000,
        white_box_steps=40,
        trade_off_images=1000,
    ),
}


def demo_settings(preset: str = "small", **changes: Any) -> DemoSettings:
    """A preset with some settings changed; changes that are `None` are left out.

    Raises:
        UsageError: an unknown preset or setting, or a value out of range.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}", did_you_mean(preset, list(PRESETS)))
    known = [field.name for field in fields(DemoSettings)]
    for name in changes:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}", did_you_mean(name, known))
    return replace(PRESETS[preset], **{name: value for name, value in changes.items() if value is not None})
