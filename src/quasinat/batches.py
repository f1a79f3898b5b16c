"""A whole set of images through a transformation, as many at a time as the memory holds."""

from collections.abc import Callable

import torch

from quasinat.arrays import Images
from quasinat.errors import InputError

FULL = ("can't allocate memory", "out of memory")  # how torch says so where it has no class for it


@torch.no_grad()
def project(
    transform: Callable[[Images], Images],
    images: Images,
    *,
    batch_size: int = 256,
    on_batch: Callable[[int], None] | None = None,
) -> Images:
    """`transform` of a whole set in batches; one for which the memory is too small is halved, as are those after it.

    Args:
        images: `B C H W`.
        batch_size: images at a time, at most.
        on_batch: called with the number of images done.

    Raises:
        InputError: the memory is too small for one image.
    """
    parts, start = [], 0
    while start < len(images):
        batch = images[start : start + batch_size]
        made = _unless_full(transform, batch)
        if made is None:
            if len(batch) == 1:
                problem = f"the memory is too small for an image of {batch.shape[2]} x {batch.shape[3]} pixels"
                raise InputError(problem, "give smaller images, or use a machine with more")
            batch_size = len(batch) // 2
            continue
        parts.append(made)
        start += len(batch)
        if on_batch:
            on_batch(start)
    return torch.cat(parts) if parts else images


def _unless_full(transform: Callable[[Images], Images], batch: Images) -> Images | None:
    """What the transformation makes of a batch; None, with what it held let go, where the memory is too small."""
    try:
        return transform(batch)
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(words in str(error) for words in FULL)):
            raise
    if batch.is_cuda or torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
