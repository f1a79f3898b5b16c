"""What all detectors share: a score for each image, and the threshold above which it is called adversarial."""

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, PerImage, PerImageBool
from quasinat.attacks.checks import check_images
from quasinat.errors import InputError, UsageError


class Detector(nn.Module):
    """Flags images `B C H W` in [0, 1] whose score is above a threshold; a subclass defines `scores`.

    The threshold is infinite, and nothing is flagged, until `calibrate` is called on clean images that the detector
    was not fitted to.
    """

    threshold: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor(torch.inf, dtype=torch.float64))

    def scores(self, images: Images) -> PerImage:
        """A number for each image; the higher, the more it looks adversarial."""
        raise NotImplementedError

    def forward(self, images: Images) -> PerImageBool:
        """Whether each image is called adversarial."""
        return self.all_scores(images) > self.threshold

    @torch.no_grad()
    def all_scores(self, images: Images, *, batch_size: int = 256) -> PerImage:
        """`scores` of checked images, batch by batch.

        Raises:
            InputError: images that are not `B C H W`, finite and in [0, 1].
        """
        check_images(images)
        return torch.cat([self.scores(part) for part in images.split(batch_size)])

    def calibrate(self, images: Images, rate: float) -> float:
        """Sets the threshold to the smallest that flags at most the share `rate` of clean images.

        Args:
            images: clean, and not those that the detector was fitted to.
            rate: of false positives, in [0, 1).

        Returns:
            The share of these images that is flagged now.

        Raises:
            UsageError: a rate outside [0, 1).
            InputError: no images.
        """
        if not 0 <= rate < 1:
            raise UsageError(f"a false-positive rate of {rate} makes no sense", "give one from 0 to below 1")
        if len(images) == 0:
            raise InputError("there are no images to calibrate a detector on", "give clean images")
        scores = self.all_scores(images).sort(descending=True).values
        allowed = int(rate * len(scores) + 1e-9)  # 0.29 * 100 is 28.999...
        self.threshold.fill_(float(scores[allowed]))
        return float((scores > self.threshold).double().mean())
