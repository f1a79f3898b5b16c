"""A whole set of images through a transformation, as many at a time as the memory holds."""

from collections.abc import Callable
from pathlib import Path

import torch

from quasinat.arrays import Images
from quasinat.errors import InputError

FULL = ("can't allocate memory", "out of memory")  # how torch says so where it has no class for it
MEMORY, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # where Linux says what there is
SHARE = 0.5  # of the free memory that a batch may take: it is an estimate, and others take from it too
BATCH_PIXELS = 2**22  # of a batch at most: from here on a device is busy whatever more it is given


def images_that_fit(height: int, width: int, bytes_per_pixel: int, device: torch.device) -> int:
    """How many images of a size are a batch: as many as half of the device's free memory holds, at least one.

    It is at most `BATCH_PIXELS` pixels, a quarter of them on a CPU: where memory is plentiful the number depends on the
    size alone.

    Args:
        height, width: of an image, in pixels.
        device: whose memory.
        bytes_per_pixel: what the transformation holds at its fullest for each pixel of a batch.
    """
    most, free = BATCH_PIXELS if device.type == "cuda" else BATCH_PIXELS // 4, free_memory(device)
    pixels = most if free is None else min(most, int(SHARE * free) // bytes_per_pixel)
    return max(1, pixels // (height * width))


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken, within the limit of a container too; `None` where the system does not tell.

    Args:
        device: the GPU or the CPU.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for whoever asks
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    try:
        lines = MEMORY.read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = ((CONTAINER / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - int(used)))


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
        transform: images to images, such as a layer.
        images: `B C H W`.
        batch_size: images at a time, at most.
        on_batch: called with the number of images done.

    Raises:
        InputError: the memory is too small for one image.

    Examples:
        >>> import torch
        >>> import quasinat as qn
        >>> qn.project(lambda batch: 1 - batch, torch.zeros(5, 1, 2, 2), batch_size=2).mean()
        tensor(1.)
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
