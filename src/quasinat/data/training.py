"""The training half of an image set alone: what anything may be fitted to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quasinat.arrays import Images
from quasinat.data import DATASETS, cifar10, load
from quasinat.errors import UsageError, did_you_mean
from quasinat.training.checkpoint import digest


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Training images `N C H W` in [0, 1], where they come from, and the SHA-256 of their pixels."""

    name: str
    images: Images
    fingerprint: str

    def provenance(self) -> dict[str, Any]:
        """What an artefact says about them."""
        return {"data": self.name, "images": len(self.images), "fingerprint": self.fingerprint}


def training_images(kind: str, root: str | Path | None, **options: Any) -> TrainingImages:
    """The training images of a data set; of CIFAR-10 the test batch is not even opened.

    Args:
        kind, root, options: as in `load`.
    """
    if kind not in DATASETS:
        raise UsageError(f"there is no data set {kind!r}", did_you_mean(kind, list(DATASETS)))
    if kind == "cifar10" and root is not None and not options:
        images = cifar10(root, "train")[0]
    else:
        images = load(kind, root, **options).train_images
    return TrainingImages(kind, images, digest(images))
