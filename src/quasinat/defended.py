"""A classifier behind a transformation: image -> logits, a plain nn.Module that any attack can be run on."""

from torch import nn

from quasinat.arrays import Images, Logits
from quasinat.layer import SparseTransformationLayer
from quasinat.sparse_coding import Adjoint


class Defended(nn.Module):
    """classifier(T(x)).

    Args:
        transform: the Sparse Transformation Layer.
        classifier: images in [0, 1] to logits, usually trained on transformed images (the paper, section 3.5).
    """

    def __init__(self, transform: SparseTransformationLayer, classifier: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.classifier = classifier

    def forward(self, images: Images) -> Logits:
        """Logits `B classes` of images `B C H W` in [0, 1]."""
        logits: Logits = self.classifier(self.transform(images))
        return logits

    def with_adjoint(self, adjoint: Adjoint) -> "Defended":
        """The same module, differentiated through the layer as `adjoint` says; for white-box attacks."""
        return Defended(self.transform.with_adjoint(adjoint), self.classifier)
