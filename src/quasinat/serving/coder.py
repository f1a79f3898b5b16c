"""What the service makes of a batch of images: T(x), the stratum, and the classifier's probabilities before and after.

What an image gets does not depend on the others in its batch, to the bit: the images of a stratum are coded together,
which treats each alone; the vote and the classifiers, whose sums torch orders by the size of the batch, see one image
at a time.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from quasinat.arrays import Image, Images
from quasinat.batches import images_that_fit, project
from quasinat.errors import UsageError
from quasinat.layer import SparseTransformationLayer
from quasinat.tiling import project_large

_HELD, _MAPS = 1024, 8  # bytes for each pixel on a CPU; maps of the codes on a GPU
Probabilities = Float[Tensor, "classes"]


@dataclass(frozen=True)
class Asked:
    """An image to be coded, and whether it is to be classified too."""

    image: UInt8[Tensor, "channels height width"]
    classify: bool


@dataclass(frozen=True)
class Outcome:
    """Of one image, on the CPU.

    Attributes:
        projected: T(x), `C H W` in [0, 1].
        stratum: whose dictionary coded it.
        before: class probabilities of x, by the plain classifier where there is one; None where not asked for.
        after: of T(x), by the classifier.
    """

    projected: Image
    stratum: int
    before: Probabilities | None
    after: Probabilities | None

    @property
    def disagreement(self) -> float:
        """The total variation between `before` and `after`, see `total_variation`.

        Raises:
            ValueError: the image was not classified.
        """
        if self.before is None or self.after is None:
            raise ValueError("the image was not classified")
        return total_variation(self.before, self.after)


def total_variation(first: Probabilities, second: Probabilities) -> float:
    """Half the sum of |p - q| over the classes, in [0, 1]: the largest difference in the probability of any event."""
    return min(1.0, float((first - second).abs().sum()) / 2)


class Coder:
    """The layer and its classifiers on one device; used by one thread at a time.

    Args:
        layer: of grey or RGB images.
        model: a classifier of images in [0, 1], for T(x).
        plain_model: one for x; `model` where there is none.
        device: where they run.

    Raises:
        UsageError: a layer of other channels, or classifiers that do not fit it or each other.
    """

    def __init__(
        self,
        layer: SparseTransformationLayer,
        model: nn.Module | None = None,
        plain_model: nn.Module | None = None,
        device: str = "cpu",
    ) -> None:
        self.channels, self.device = layer.filters.shape[2], torch.device(device)
        if self.channels not in (1, 3):
            raise UsageError(f"the layer is for images of {self.channels} channels", "serve one of grey or RGB images")
        if plain_model is not None and model is None:
            raise UsageError("--plain-model is compared with --model", "name a --model too")
        classes = {getattr(network, "classes", None) for network in (model, plain_model)} - {None}
        if len(classes) > 1:
            raise UsageError("--model and --plain-model have other classes", "name two trained on one image set")
        for option, network in (("--model", model), ("--plain-model", plain_model)):
            found = getattr(network, "channels", None)
            if found not in (None, self.channels):
                problem = f"{option} is for images of {found} channels, the layer for {self.channels}"
                raise UsageError(problem, "name one trained on images like the layer's")
        self.layer = layer.to(self.device).eval()
        self.model = None if model is None else model.to(self.device).eval()
        self.plain_model = self.model if plain_model is None else plain_model.to(self.device).eval()
        self._within = [self.layer.within(stratum) for stratum in range(len(layer.filters))]

    def least_side(self, classify: bool) -> int:
        """Of images, in pixels: that of the filters and, to classify, what a network's poolings leave a pixel of.

        A network that brings images to its own size takes any.
        """
        both = (self.model, self.plain_model) if classify else ()
        networks = [each for each in both if each is not None and getattr(each, "size", None) is None]
        poolings = [sum(isinstance(part, nn.MaxPool2d) for part in network.modules()) for network in networks]
        return max([self.layer.filters.shape[-1], *(2**count for count in poolings)])

    def most(self, height: int, width: int) -> int:
        """How many images of a size are coded together; see `images_that_fit`."""
        held = _HELD if self.device.type == "cpu" else _MAPS * 4 * self.layer.filters.shape[1]
        return images_that_fit(height, width, held, self.device)

    @torch.no_grad()
    def code(self, asked: list[Asked]) -> list[Outcome]:
        """The outcome of each of some images of one size, in their order.

        Raises:
            InputError: the memory is too small for one of them.
        """
        images = torch.stack([each.image for each in asked]).to(self.device).float() / 255
        strata = [int(self.layer.stratum(image[None])) for image in images]
        projected = torch.empty_like(images)
        for stratum in sorted(set(strata)):
            own = [place for place, found in enumerate(strata) if found == stratum]
            projected[own] = self._coded(stratum, images[own])
        return [
            Outcome(
                projected[place].cpu(),
                strata[place],
                _probabilities(self.plain_model, images[place]) if each.classify else None,
                _probabilities(self.model, projected[place]) if each.classify else None,
            )
            for place, each in enumerate(asked)
        ]

    def _coded(self, stratum: int, images: Images) -> Images:
        """T of images of one stratum; one by one where the layer's filters would be refined for a whole batch."""
        shared = self.layer.refine > 0 and self.layer.refine_over == "batch"
        return project(partial(project_large, self._within[stratum]), images, batch_size=1 if shared else len(images))

    def warm_up(self) -> None:
        """Codes a grey image, so that the first request finds libraries loaded and memory there."""
        side = self.least_side(classify=True)
        grey = torch.full((self.channels, side, side), 128, dtype=torch.uint8)
        self.code([Asked(grey, self.model is not None)])


def _probabilities(network: nn.Module | None, image: Image) -> Probabilities | None:
    """The softmax of a network's logits of one image, in float64; None without a network."""
    return None if network is None else network(image[None])[0].double().softmax(0).cpu()
