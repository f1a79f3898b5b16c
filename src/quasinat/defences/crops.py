"""Random crops of the image, enlarged to its size; the class probabilities are averaged over them."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from quasinat.arrays import Images
from quasinat.attacks.checks import check_count
from quasinat.defences.draws import Seed, drawn
from quasinat.defences.image_bounds import check_input, in_range
from quasinat.defences.transformation import Views
from quasinat.defended import StraightThrough
from quasinat.errors import UsageError
from quasinat.sparse_coding import Adjoint, Identity

CROPS = 30
FRACTION = 90 / 224


def random_crops(images: Images, *, crops: int = CROPS, fraction: float = FRACTION, seed: Seed = 0) -> Iterator[Images]:
    """`crops` crops of each image at places of its own, enlarged to the image's size.

    Guo, Rana, Cisse & van der Maaten (2018), "Countering Adversarial Images using Input Transformations", section 4.1
    (image cropping-rescaling), numbers from section 5: 30 crops of 90 x 90 of 224 x 224 pixels. All places inside the
    image are equally likely. The crops are enlarged bilinearly with half-pixel centres, as Pillow does; since a crop is
    never larger than its image, antialiasing would change nothing. Given the places, the gradient is exact.

    Args:
        images: `B C H W` in [0, 1].
        crops: how many.
        fraction: a crop's sides over the image's, in (0, 1]; a side is rounded down to whole pixels.
        seed: of the places; see `draws.Seed`. All places are drawn before the first crop is cut.

    Yields:
        `B C H W` in [0, 1], one after another.

    What differs from the source, and why: its code rounds an enlarged crop to 8 bits, because it passes through an
    image file's format; here it is not rounded, so that it can be differentiated.

    Raises:
        UsageError: an option that is out of range, when it is called.
    """
    _check(crops, fraction)
    return _crops(images, crops, fraction, seed)


class CropEnsemble(Views):
    """`random_crops` as a module, with another defence after them; `Defended` averages the probabilities.

    The source's code (`transformation_helper.py`) cuts a crop first, enlarges it, and applies TVM or quilting to the
    enlarged crop. So does this: `then` sees each of the crops, not the image. What is called Crop-Ens in table 2 of the
    paper that is compared with is this with TVM and quilting for `then`.

    The crops are differentiated exactly. `then` decides about its own derivative: one that has none refuses, unless
    the identity is named for it by `with_adjoint`.

    As a plain transformation, such as for training images, it gives the first of its views.

    Args:
        then: images to images of the same size, applied to every enlarged crop.
        crops, fraction, seed: see `random_crops`.

    What differs from the source, and why: see `random_crops`. The source's code can average over several
    networks, too, each trained on one defence's images; here there is one network.
    """

    differentiable: ClassVar[bool] = True

    def __init__(
        self,
        then: nn.Module | None = None,
        *,
        crops: int = CROPS,
        fraction: float = FRACTION,
        seed: Seed = 0,
    ) -> None:
        super().__init__()
        _check(crops, fraction)
        self.then = then
        self.crops = crops
        self.fraction = fraction
        self.seed = seed

    def views(self, images: Images) -> Iterator[Images]:
        """The views, each `B C H W` in [0, 1].

        Raises:
            InputError: as of `Transformation.forward`, when it is called.
        """
        check_input(images, type(self).__name__, self.least_side)
        crops = random_crops(images, crops=self.crops, fraction=self.fraction, seed=self.seed)
        return crops if self.then is None else map(self.then, crops)

    def transform(self, images: Images) -> Images:
        """The first view of each image."""
        view: Images = next(iter(self.views(images)))
        return view

    def with_adjoint(self, adjoint: Adjoint) -> "CropEnsemble":
        """The same ensemble, sharing tensors, with `then` differentiated as the identity; crops stay exact.

        Raises:
            UsageError: any other adjoint.
        """
        if not isinstance(adjoint, Identity):
            problem = f"{type(self).__name__} has no gradient of the kind {type(adjoint).__name__}"
            raise UsageError(problem, "name Identity()")
        then = None if self.then is None else StraightThrough(self.then)
        named = type(self)(then, crops=self.crops, fraction=self.fraction, seed=self.seed)
        named.training = self.training  # of this module alone: `train` would change the flags inside `then`
        return named


def _check(crops: int, fraction: float) -> None:
    check_count("crops", crops)
    if not 0 < fraction <= 1:
        raise UsageError(f"fraction is {fraction}", "give a crop's share of the image's side, above 0 and at most 1")


def _crops(images: Images, crops: int, fraction: float, seed: Seed) -> Iterator[Images]:
    height, width = images.shape[2:]
    tall, wide = (max(1, int(side * fraction + 1e-9)) for side in (height, width))  # 90 / 224 * 224 may be 89.999...

    def places(generator: Generator) -> Tensor:
        tops = torch.randint(height - tall + 1, (crops,), generator=generator)
        lefts = torch.randint(width - wide + 1, (crops,), generator=generator)
        return torch.stack([tops, lefts], 1)

    for tops, lefts in drawn(images, seed, "crops", places).permute(1, 2, 0):
        cut = _slice(_slice(images, tops, tall, 2), lefts, wide, 3)
        yield in_range(F.interpolate(cut, (height, width), mode="bilinear", align_corners=False))


def _slice(images: Tensor, starts: Tensor, length: int, axis: int) -> Tensor:
    """`length` rows or columns of each image from a start of its own; no pixel twice, so its adjoint is exact."""
    positions = starts[:, None] + torch.arange(length, device=images.device)
    shape = list(images.shape)
    shape[axis] = length
    index = positions[:, None, :, None] if axis == 2 else positions[:, None, None, :]
    return images.gather(axis, index.expand(shape))
