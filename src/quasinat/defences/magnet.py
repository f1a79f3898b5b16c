"""MagNet (Meng & Chen 2017, "MagNet: a Two-Pronged Defense against Adversarial Examples", CCS): reformer and detectors.

The order of the source: the detectors see the image as it comes, what any of them flags is rejected, and
the rest is reformed and classified:

    flagged = detectors(images)
    logits = Defended(Magnet(autoencoder), classifier)(images[~flagged])
"""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from quasinat.arrays import Images, Logits, PerImage
from quasinat.attacks.checks import check_count, check_logits, check_number
from quasinat.attacks.model_access import evaluating
from quasinat.defences.detector import Detector
from quasinat.defences.magnet_autoencoder import MagnetAutoencoder
from quasinat.defences.transformation import Transformation
from quasinat.errors import UsageError


def reform(images: Images, autoencoder: MagnetAutoencoder) -> Images:
    """MagNet's reformer: the autoencoder's reconstruction, clipped to [0, 1] as the source clips it.

    Args:
        images: `B C H W` in [0, 1].
        autoencoder: from `learn_magnet` or `load_magnet`.

    What differs from the source, and why: against a grey-box attacker it draws one of several autoencoders, learned to
    differ, at random ("diversity"). Here one is named, and results do not depend on a draw.

    Raises:
        InputError: images of other channels than the autoencoder's.
    """
    return autoencoder(images).clamp(0, 1)


class Magnet(Transformation):
    """`reform` as a module; its gradient is the true one. `plan` is the autoencoder's."""

    differentiable: ClassVar[bool] = True
    least_side: ClassVar[int] = 1  # MNIST's images are smaller than the others

    def __init__(self, autoencoder: MagnetAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.plan = autoencoder.plan

    def transform(self, images: Images) -> Images:
        """`reform`."""
        return reform(images, self.autoencoder)


def reconstruction_error(images: Images, autoencoder: MagnetAutoencoder, *, p: int = 1) -> PerImage:
    """The mean of |x - AE(x)|^p over an image's values, without the p-th root, as in the source's code.

    Args:
        images: `B C H W` in [0, 1].
        autoencoder: from `learn_magnet` or `load_magnet`.
        p: of the norm, at least 1.
    """
    return (images - autoencoder(images)).abs().pow(p).flatten(1).mean(1)


def jensen_shannon(first: Logits, second: Logits, *, temperature: float = 1.0) -> PerImage:
    """The Jensen-Shannon divergence of softmax(first / T) and softmax(second / T), in nats: 0 to log 2.

    In double precision, because at high temperatures two nearly equal distributions are compared.

    Args:
        first, second: `B classes`.
        temperature: T, above 0.
    """
    p, q = ((logits.double() / temperature).log_softmax(1) for logits in (first, second))
    middle = torch.logaddexp(p, q) - math.log(2)
    each = F.kl_div(middle, p, reduction="none", log_target=True) + F.kl_div(
        middle, q, reduction="none", log_target=True
    )
    return each.sum(1) / 2


class ReconstructionError(Detector):
    """Flags images that the autoencoder does not give back; scores are `reconstruction_error`, in float32.

    (Meng & Chen 2017, "Detector based on reconstruction error".)

    Args:
        autoencoder: from `learn_magnet` or `load_magnet`.
        p: of the norm; the source's is 1 on CIFAR-10, and on MNIST 2 with "mnist-1" and 1 with "mnist-2".

    Raises:
        UsageError: a `p` below 1.
    """

    def __init__(self, autoencoder: MagnetAutoencoder, *, p: int = 1) -> None:
        super().__init__()
        check_count("p", p)
        self.autoencoder, self.p = autoencoder, p

    def scores(self, images: Images) -> PerImage:
        """The reconstruction error of each image."""
        return reconstruction_error(images, self.autoencoder, p=self.p).float()  # as the threshold is


class ProbabilityDivergence(Detector):
    """Flags images whose class probabilities the autoencoder changes; scores are `jensen_shannon`, in float32.

    (Meng & Chen 2017, "Detector based on probability divergence".)

    Args:
        autoencoder: from `learn_magnet` or `load_magnet`.
        classifier: the one that is defended, images in [0, 1] to logits; held in evaluation mode.
        temperature: T, which divides the logits; the source uses 10 and 40 on CIFAR-10, one detector for each.

    Raises:
        UsageError: a temperature that is not positive.
    """

    def __init__(self, autoencoder: MagnetAutoencoder, classifier: nn.Module, *, temperature: float = 10.0) -> None:
        super().__init__()
        check_number("temperature", temperature)
        self.autoencoder, self.classifier, self.temperature = autoencoder, classifier, temperature

    def scores(self, images: Images) -> PerImage:
        """The divergence between the class probabilities of each image and of its reconstruction."""
        with evaluating(self.classifier):
            first, second = self.classifier(images), self.classifier(reform(images, self.autoencoder))
        for logits in (first, second):
            check_logits(logits, torch.zeros(len(images), dtype=torch.int64, device=logits.device))
        return jensen_shannon(first, second, temperature=self.temperature).float()  # as the threshold is


class MagnetDetectors(Detector):
    """Flags what any of several detectors flags, each with its own threshold.

    An image's score is its largest ratio of a detector's score to that detector's threshold, and its own threshold is
    1. The detectors may be calibrated one by one, as `detectors.parts[0].calibrate(images, 0.001)`, or all at once.

    Args:
        parts: such as `ReconstructionError` and `ProbabilityDivergence`, whose scores are not negative.

    Raises:
        UsageError: no detector.
    """

    def __init__(self, *parts: Detector) -> None:
        super().__init__()
        if not parts:
            raise UsageError("there is no detector to combine", "give at least one")
        self.parts = nn.ModuleList(parts)
        self.threshold.fill_(1.0)

    def scores(self, images: Images) -> PerImage:
        """The largest ratio of a score to its threshold; above 1 exactly where a detector flags the image."""
        ratios = []
        for part in self._detectors():
            scores = part.scores(images)
            ratio = scores / part.threshold
            ratios.append(torch.where(scores > part.threshold, ratio, ratio.nan_to_num(0.0)))  # 0 / 0 is not above
        return torch.stack(ratios).amax(0)

    def calibrate(self, images: Images, rate: float | Sequence[float]) -> float:
        """Calibrates every detector on the same clean images; see `Detector.calibrate`.

        Args:
            images: clean, and not those that the autoencoder or the classifier learned from.
            rate: of false positives of each detector, one for all or one for each; the source's is 0.005 on CIFAR-10
                and 0.001 on MNIST. Together they flag at most the sum.

        Returns:
            The share of these images that any of them flags now.

        Raises:
            UsageError: a rate outside [0, 1), or not one for each detector.
            InputError: no images.
        """
        rates = list(rate) if isinstance(rate, Sequence) else [rate] * len(self.parts)
        if len(rates) != len(self.parts):
            raise UsageError(f"{len(rates)} rates are not one for each of {len(self.parts)} detectors", "give as many")
        for part, own in zip(self._detectors(), rates, strict=True):
            part.calibrate(images, own)
        return float(self(images).float().mean())

    def _detectors(self) -> Iterator[Detector]:
        for part in self.parts:
            assert isinstance(part, Detector)
            yield part


def cifar_detectors(autoencoder: MagnetAutoencoder, classifier: nn.Module) -> MagnetDetectors:
    """The source's three on CIFAR-10: the L1 error, and the divergence at temperatures 10 and 40.

    Args:
        autoencoder: of the plan "cifar".
        classifier: the one that is defended.
    """
    warm, hot = (ProbabilityDivergence(autoencoder, classifier, temperature=t) for t in (10.0, 40.0))
    return MagnetDetectors(ReconstructionError(autoencoder, p=1), warm, hot)


def mnist_detectors(first: MagnetAutoencoder, second: MagnetAutoencoder) -> MagnetDetectors:
    """The source's two on MNIST: the L2 error of the first autoencoder, the L1 error of the second.

    Args:
        first: of the plan "mnist-1", which is the reformer too.
        second: of the plan "mnist-2".
    """
    return MagnetDetectors(ReconstructionError(first, p=2), ReconstructionError(second, p=1))
