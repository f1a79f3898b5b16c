"""Label-preserving changes of training images: mirroring and small shifts."""

import torch
from torch.nn import functional as F

from quasinat.arrays import Images
from quasinat.parallel import mine


def mirror_and_shift(
    images: Images, generator: torch.Generator, *, shift: int = 4, mirror: bool = True, batch: int | None = None
) -> Images:
    """Each image `B C H W` flipped left to right with probability 1/2 and moved by up to `shift` pixels each way.

    The border is continued by mirroring. Both are drawn for the whole batch's images one by one.

    Args:
        batch: the number of images of the whole batch, where `images` are one process's share of it.
    """
    height, width = images.shape[2:]
    batch = len(images) if batch is None else batch
    if mirror:
        flip = mine(torch.rand(batch, generator=generator)) < 0.5
        images = torch.where(flip.to(images.device)[:, None, None, None], images.flip(3), images)
    shift = min(shift, height - 1, width - 1)  # mirroring cannot continue an image by more than itself
    if not shift:
        return images
    padded = F.pad(images, (shift, shift, shift, shift), mode="reflect")
    offsets = mine(torch.randint(2 * shift + 1, (batch, 2), generator=generator))
    moved = [padded[i, :, t : t + height, s : s + width] for i, (t, s) in enumerate(offsets.tolist())]
    return torch.stack(moved)
