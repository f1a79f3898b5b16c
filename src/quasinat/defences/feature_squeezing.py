"""Feature squeezing: fewer levels, the median, non-local means; and the detector that asks all of them."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from quasinat.arrays import Images, Logits, PerImage
from quasinat.attacks.model_access import evaluating
from quasinat.defences.bit_depth import BitDepth
from quasinat.defences.detector import Detector
from quasinat.defences.filters import MedianFilter
from quasinat.defences.non_local_means import NonLocalMeans
from quasinat.defences.transformation import Transformation
from quasinat.errors import UsageError, did_you_mean

FALSE_POSITIVE_RATE = 0.05
"""The source's, of clean images, for `JointDetector.calibrate`."""

Use = Literal["row", "bits", "median", "means"]
USES = ("row", "bits", "median", "means")


def default_squeezers(
    *, bits: int = 5, size: int = 2, search: int = 11, patch: int = 3, strength: float = 4 / 255
) -> tuple[Transformation, Transformation, Transformation]:
    """The three squeezers of Xu, Evans & Qi (2018), "Feature Squeezing", for colour images.

    The defaults are those of its joint detector on CIFAR-10 and ImageNet: 5 bits, the median of 2 x 2, and non-local
    means 11-3-4.

    Args:
        bits: see `reduce_bit_depth`.
        size: see `median_filter`.
        search, patch, strength: see `non_local_means`.

    Raises:
        UsageError: an option that makes no sense.
    """
    means = NonLocalMeans(search=search, patch=patch, strength=strength)
    return BitDepth(bits=bits), MedianFilter(size=size), means


def feature_squeezing(
    images: Images,
    *,
    use: Use = "row",
    bits: int = 5,
    size: int = 2,
    search: int = 11,
    patch: int = 3,
    strength: float = 4 / 255,
) -> Images:
    """Squeezes images as Xu, Evans & Qi (2018), "Feature Squeezing", do to classify them.

    What differs from the source, and why: the source classifies images that one squeezer has treated, and combines
    several only to detect (`JointDetector`). A comparison with other transformations asks for one defence: "row" puts
    the images through all three, bits first. The three by themselves are the other values of `use`.

    Args:
        images: `B C H W` in [0, 1].
        use: "row", or one of them: "bits", "median", "means".
        bits, size, search, patch, strength: see `default_squeezers`.

    Raises:
        UsageError: an option that makes no sense.
        InputError: images too small for the search.
    """
    chosen = _chosen(use, default_squeezers(bits=bits, size=size, search=search, patch=patch, strength=strength))
    for squeezer in chosen:
        images = squeezer.transform(images)
    return images


def _chosen(use: str, row: tuple[Transformation, ...]) -> tuple[Transformation, ...]:
    if use not in USES:
        raise UsageError(f"there is no squeezing {use!r}", did_you_mean(use, list(USES)))
    return row if use == "row" else (row[USES.index(use) - 1],)


class FeatureSqueezing(Transformation):
    """`feature_squeezing` as a module; its gradient has to be named, as that of the bit depth is zero."""

    def __init__(
        self,
        *,
        use: Use = "row",
        bits: int = 5,
        size: int = 2,
        search: int = 11,
        patch: int = 3,
        strength: float = 4 / 255,
    ) -> None:
        super().__init__()
        _chosen(use, default_squeezers(bits=bits, size=size, search=search, patch=patch, strength=strength))
        self.use: Use = use
        self.bits, self.size = bits, size
        self.search, self.patch, self.strength = search, patch, strength

    def transform(self, images: Images) -> Images:
        """`feature_squeezing` of the images."""
        options: dict[str, Any] = self.settings()
        return feature_squeezing(images, **options)


class JointDetector(Detector):
    """Calls an image adversarial that a squeezer makes the classifier see otherwise.

    The score of x is max over squeezers s of ||softmax(f(x)) - softmax(f(s(x)))||_1, from 0 to 2 (Xu, Evans & Qi 2018,
    "Feature Squeezing", section IV, joint detection). `calibrate(images, FALSE_POSITIVE_RATE)` sets the threshold as
    the source does: the smallest at which at most 5 % of clean images are flagged.

    What differs from the source, and why: nothing but the squeezers' own differences.

    Args:
        classifier: f, images in [0, 1] to logits; it is asked in evaluation mode.
        squeezers: images to images of any size that f takes; by default `default_squeezers()`.

    Raises:
        UsageError: no squeezers.
    """

    def __init__(self, classifier: nn.Module, squeezers: Sequence[nn.Module] | None = None) -> None:
        super().__init__()
        chosen = default_squeezers() if squeezers is None else squeezers
        if not chosen:
            raise UsageError("a joint detector of no squeezers flags nothing", "give at least one")
        self.classifier = classifier
        self.squeezers = nn.ModuleList(chosen)

    def scores(self, images: Images) -> PerImage:
        """The largest change of the class probabilities, in the l1 norm."""
        with evaluating(self.classifier):
            original = self._probabilities(images)
            changes = [(original - self._probabilities(squeezer(images))).abs().sum(1) for squeezer in self.squeezers]
        return torch.stack(changes).amax(0)

    def _probabilities(self, images: Images) -> Logits:
        logits: Logits = self.classifier(images)
        return logits.softmax(1)
