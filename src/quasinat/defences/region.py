"""Region-based classification: the vote of the points of a small cube around the image."""

import torch
from torch import Tensor, nn

from quasinat.arrays import Images, Logits
from quasinat.attacks.checks import check_count, check_images, check_number
from quasinat.defences.draws import Seed, generators

AT_ONCE = 256  # points of one image that are classified together


class RegionVote(nn.Module):
    """Classifies an image by the majority of a classifier's decisions at random points of a cube around it.

    (Cao & Gong 2017, "Mitigating Evasion Attacks to Deep Neural Networks via Region-based Classification", section 4.)
    The points are x + u, u uniform in the cube |u|_inf <= radius; points outside [0, 1] are brought back to it, so that
    the classifier sees images.

    The logits are log((n_k + 1) / (votes + classes)), n_k the votes of class k: their largest is the majority's. They
    have no gradient. `softened` averages probabilities instead of votes, and is what an attack should climb.

    What differs from the source, and why: its radius (0.02 on CIFAR-10, 0.3 on MNIST) comes from a search on validation
    images, which is left to the caller; it breaks a tie at random, here the lowest class wins; each image's points are
    drawn from the seed and the image, so that an image's class does not depend on its batch.

    Args:
        classifier: images `B C H W` in [0, 1] to logits; its evaluation mode is its own affair.
        radius: of the cube, in units of a pixel's range.
        votes: points an image.
        seed: of the points; see `draws.Seed`.
        soft: average the class probabilities instead of counting votes.

    Raises:
        UsageError: a radius or a number of votes that cannot be.
    """

    def __init__(
        self, classifier: nn.Module, *, radius: float = 0.02, votes: int = 1000, seed: Seed = 0, soft: bool = False
    ) -> None:
        super().__init__()
        check_number("the radius", radius)
        check_count("votes", votes)
        self.classifier = classifier
        self.radius, self.votes, self.seed, self.soft = radius, votes, seed, soft

    def forward(self, images: Images) -> Logits:
        """Logits `B classes` of images `B C H W`, one image at a time."""
        check_images(images)
        drawn = generators(images, self.seed, "region")
        shares = [self._share(image, generator) for image, generator in zip(images, drawn, strict=True)]
        if not shares:
            blank: Logits = self.classifier(images)
            return blank
        counted = torch.stack(shares)
        if self.soft:
            return counted.log()
        classes = counted.shape[1]
        return ((self.votes * counted + 1) / (self.votes + classes)).log()

    def _share(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The share of each class: of the votes, or of the probability."""
        total: Tensor | None = None
        for start in range(0, self.votes, AT_ONCE):
            count = min(AT_ONCE, self.votes - start)
            offsets = torch.rand(count, *image.shape, generator=generator).to(image)
            points = (image + self.radius * (2 * offsets - 1)).clamp(0, 1)
            logits = self.classifier(points)
            each = logits.softmax(1) if self.soft else nn.functional.one_hot(logits.argmax(1), logits.shape[1])
            part = each.to(logits).sum(0)
            total = part if total is None else total + part
        assert total is not None  # votes is at least 1
        return total / self.votes

    def softened(self, votes: int | None = None) -> "RegionVote":
        """The same with averaged probabilities: differentiable, and close to the vote where the classifier is sure.

        Args:
            votes: points an image; as many as here by default.
        """
        return RegionVote(
            self.classifier, radius=self.radius, votes=votes or self.votes, seed=self.seed, soft=True
        ).train(self.training)
