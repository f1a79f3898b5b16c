"""PixelDefend: the likeliest image near the given one, pixel after pixel."""

import copy

import torch
from torch import Tensor

from quasinat.arrays import Images, PerImage
from quasinat.attacks.checks import check_number
from quasinat.defences.cached_decoding import CachedDecoder
from quasinat.defences.transformation import Transformation
from quasinat.errors import InputError
from quasinat.networks.logistic_mixture import LEVELS, log_mass, mixture_from
from quasinat.networks.pixelcnn import PixelCNN

RADIUS = 16 / 255
PIXELS_AT_ONCE = 2**16  # of a pass over whole images
AT_ONCE = 2**21  # pixels times features that are decoded together


@torch.no_grad()
def pixel_defend(images: Images, model: PixelCNN, *, radius: float = RADIUS) -> Images:
    """Moves each image within a box around it to where a density of natural images is higher.

    (Song, Kim, Nowozin, Ermon & Kushman 2018, "PixelDefend: Leveraging Generative Models to Understand and Defend
    against Adversarial Examples", Algorithm 1.) Pixel by pixel in raster order, and within a pixel channel by channel,
    the level of [x - radius, x + radius] with the largest conditional probability is chosen, given what has been
    chosen before.

    What differs from the source, and why:
    - Greedy choices can end at a less likely image than they began with. Where they do, the image is returned as it
      came, rounded to 8 bits, so that the likelihood is never lowered.
    - The density is `PixelCNN`, see there and `learn_pixelcnn`.
    - The source's adaptive variant, which leaves images alone that are likely enough, is not here.

    Args:
        images: `B C H W` in [0, 1]; they are rounded to 8 bits first.
        model: in evaluation mode.
        radius: of the box, in units of a pixel's range, rounded down to whole levels; 16/255 in the source.

    Raises:
        InputError: images of other channels than the model's.
    """
    if images.shape[1] != model.channels:
        problem = f"the images have {images.shape[1]} channels and the PixelCNN was made for {model.channels}"
        raise InputError(problem, "convert the images, or learn one from images like these")
    if len(images) == 0:
        return images.clone()
    # One level that rounding turns over changes all that follow; in double precision an image is decoded alike alone
    # and in any batch.
    model = copy.deepcopy(model).double()
    most = max(1, AT_ONCE // (model.width * images.shape[3] * (model.blocks + 1)))
    parts = [_defended(part, model, int(radius * (LEVELS - 1) + 1e-6)) for part in images.split(most)]
    return torch.cat(parts).to(images.dtype)


def _defended(images: Images, model: PixelCNN, reach: int) -> Images:
    levels = (images * (LEVELS - 1)).round().double()
    chosen = _greedy(levels, model, reach)
    before, after = (_log_likelihoods(each / (LEVELS - 1), model) for each in (levels, chosen))
    better = (after > before).view(-1, 1, 1, 1)
    return torch.where(better, chosen, levels) / (LEVELS - 1)


def _log_likelihoods(images: Images, model: PixelCNN) -> PerImage:
    """Of each image, so many at a time that a pass takes a few hundred MB."""
    most = max(1, PIXELS_AT_ONCE // (images.shape[2] * images.shape[3]))
    return torch.cat([model.log_likelihood(part) for part in images.split(most)])


def _greedy(levels: Tensor, model: PixelCNN, reach: int) -> Tensor:
    """The levels of Algorithm 1, `B C H W`."""
    decoder, chosen = CachedDecoder(model, levels), torch.empty_like(levels)
    steps = torch.arange(-reach, reach + 1, dtype=levels.dtype, device=levels.device)
    for row in range(levels.shape[2]):
        decoder.begin_row()
        for column in range(levels.shape[3]):
            mixture = mixture_from(decoder.parameters(column), model.channels)
            running, made = mixture.log_weights, levels.new_empty(len(levels), 0)
            for channel in range(model.channels):
                box = levels[:, channel, row, column, None] + steps
                masses = running[..., None] + log_mass(mixture, channel, box.clamp(0, LEVELS - 1), made)
                outside = (box < 0) | (box >= LEVELS)
                best = masses.logsumexp(1).masked_fill(outside, -torch.inf).argmax(1, keepdim=True)
                running = masses.gather(2, best[:, None].expand(-1, masses.shape[1], -1))[..., 0]
                made = torch.cat([made, box.gather(1, best)], 1)
            chosen[:, :, row, column] = made
            decoder.put(column, made / (LEVELS - 1))
    return chosen


class PixelDefend(Transformation):
    """`pixel_defend` as a module; see there for parameters and source. Name `Identity()` for its gradient."""

    def __init__(self, model: PixelCNN, *, radius: float = RADIUS) -> None:
        super().__init__()
        check_number("the radius", radius, zero=True)
        self.model, self.radius = model, radius

    def transform(self, images: Images) -> Images:
        """The purified images."""
        return pixel_defend(images, self.model, radius=self.radius)
