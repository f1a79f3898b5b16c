"""A classifier behind a transformation: image -> logits, a plain nn.Module that any attack can be run on."""

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from quasinat.arrays import Images, Logits
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.layer_options import Clipping
from quasinat.sparse_coding import Adjoint, Identity


@runtime_checkable
class ManyViews(Protocol):
    """A transformation that makes several views of each image, such as random crops."""

    def views(self, images: Images) -> Iterator[Images]:
        """The views, each a batch of as many images."""
        ...

    def with_adjoint(self, adjoint: Adjoint) -> nn.Module:
        """The same transformation, differentiated as named."""
        ...


class Defended(nn.Module):
    """classifier(T(x)).

    Of a transformation that makes several views (`ManyViews`), the class probabilities are averaged over them, and
    the logits are the logarithms of the averages.

    Args:
        transform: the Sparse Transformation Layer, any of `quasinat.defences`, or any module of images to images.
        classifier: images in [0, 1] to logits, usually trained on transformed images (the paper, section 3.5).
        eight_bit: round the images to 8 bits first, as a service that reads image files does; its derivative is the
            identity.
        output: takes the logits out of what the classifier gives, where that is more than a tensor, as
            `lambda answer: answer.logits` does for a Hugging Face model; `classifier` is then a `LogitsOf` of the two.

    Examples:
        >>> import torch
        >>> import quasinat as qn
        >>> from quasinat.defences import BitDepth
        >>> classifier = qn.networks.vgg("vgg-small", classes=10, channels=3).eval()
        >>> defended = qn.Defended(BitDepth(bits=3), classifier)
        >>> defended(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        transform: nn.Module,
        classifier: nn.Module,
        *,
        eight_bit: bool = False,
        output: Callable[[Any], Logits] | None = None,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.classifier = classifier if output is None else LogitsOf(classifier, output)
        self.eight_bit = eight_bit

    def forward(self, images: Images) -> Logits:
        """Logits `B classes` of images `B C H W` in [0, 1]."""
        if self.eight_bit:
            images = EightBit()(images)
        if isinstance(self.transform, ManyViews):
            each = [self.classifier(view).log_softmax(1) for view in self.transform.views(images)]
            return torch.stack(each).logsumexp(0) - math.log(len(each))
        logits: Logits = self.classifier(self.transform(images))
        return logits

    def with_adjoint(self, adjoint: Adjoint, *, clipping: Clipping = "exact") -> "Defended":
        """The same module, differentiated through the transformation as `adjoint` says; for white-box attacks.

        Args:
            adjoint: `Identity()` serves any transformation, the others the Sparse Transformation Layer. Of several
                views it stands for what has no gradient of its own in them: crops are differentiated as they are.
            clipping: of the layer, see `SparseTransformationLayer.with_adjoint`.

        Raises:
            UsageError: `Unrolled` or `Implicit` for a transformation that is no such layer.
        """
        if isinstance(self.transform, SparseTransformationLayer):
            named: nn.Module = self.transform.with_adjoint(adjoint, clipping=clipping)
            return Defended(named, self.classifier, eight_bit=self.eight_bit)
        if not isinstance(adjoint, Identity):
            problem = f"{type(self.transform).__name__} has no gradient of the kind {type(adjoint).__name__}"
            raise UsageError(problem, "name Identity(), or use the module without with_adjoint if it is differentiable")
        if isinstance(self.transform, ManyViews):
            return Defended(self.transform.with_adjoint(adjoint), self.classifier, eight_bit=self.eight_bit)
        return Defended(StraightThrough(self.transform), self.classifier, eight_bit=self.eight_bit)


class LogitsOf(nn.Module):
    """A classifier that gives more than logits, as one that gives nothing else.

    Args:
        classifier: images to any answer.
        output: the answer to its logits `B classes`.
    """

    def __init__(self, classifier: nn.Module, output: Callable[[Any], Logits]) -> None:
        super().__init__()
        self.classifier = classifier
        self.output = output

    def forward(self, images: Images) -> Logits:
        """`output(classifier(images))`."""
        return self.output(self.classifier(images))


class StraightThrough(nn.Module):
    """Any transformation of images to images of the same shape, with the identity as its derivative (BPDA).

    (Athalye, Carlini & Wagner 2018, section 4.1.)

    Args:
        transform: images to images of the same shape.
    """

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Images) -> Images:
        """`transform(images)`.

        Raises:
            UsageError: they have another shape than the images, so that the identity cannot stand for the derivative.
        """
        made = Identity().apply(self.transform, images)
        if made.shape != images.shape:
            problem = f"{type(self.transform).__name__} changes the images' shape, so its derivative is no identity"
            raise UsageError(problem, "use the module without with_adjoint, if it is differentiable")
        return made


class EightBit(nn.Module):
    """Rounds images in [0, 1] to the 256 levels of an image file; as deployed in front of a layer that reads files.

    Its derivative, zero almost everywhere, is replaced by the identity.
    """

    def forward(self, images: Images) -> Images:
        """The nearest multiples of 1/255."""
        return Identity().apply(lambda x: (255 * x).round() / 255, images)
