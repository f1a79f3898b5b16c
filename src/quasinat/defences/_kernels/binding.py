"""The compiled kernel of total-variation minimisation, seen from Python: found, loaded, and called on tensors.

It is plain C functions in an extension module, called through ctypes, which releases the interpreter's lock.
"""

import ctypes
import functools
import importlib.util
from ctypes import POINTER, Structure, byref, c_double, c_int64, c_void_p

import torch
from torch import Tensor

MODULE = "quasinat.defences._kernels._total_variation"
SUFFIXES = {torch.float32: "f32", torch.float64: "f64"}


class Options(Structure):
    """`Options` of the kernel."""

    _fields_ = [
        *((name, c_double) for name in ("weight", "reach", "tolerance")),
        *((name, c_int64) for name in ("steps", "coarse_steps", "check", "least_side", "threads")),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded kernel, or `None` where it was not built or cannot be loaded."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        return None
    try:
        loaded = ctypes.CDLL(spec.origin)
        for suffix in SUFFIXES.values():
            function = getattr(loaded, f"quasinat_total_variation_{suffix}")
            function.argtypes = [c_void_p] * 4 + [POINTER(Options)]
    except (OSError, AttributeError):
        return None
    return loaded


def takes(images: Tensor) -> bool:
    """Whether there is a kernel for such images."""
    return images.device.type == "cpu" and images.dtype in SUFFIXES and library() is not None


def inpainted(images: Tensor, kept: Tensor, options: Options, out: Tensor | None = None) -> Tensor:
    """The minimiser for images and a mask `B C H W` of one dtype that the kernel takes, on the CPU.

    `out` is contiguous and of the images' shape and dtype, and may be `kept`.
    """
    images, kept = images.contiguous(), kept.to(images.dtype).contiguous()
    result, shape = torch.empty_like(images) if out is None else out, (c_int64 * 4)(*images.shape)
    if not images.numel():
        return result
    failed = getattr(library(), f"quasinat_total_variation_{SUFFIXES[images.dtype]}")(
        ctypes.addressof(shape), images.data_ptr(), kept.data_ptr(), result.data_ptr(), byref(options)
    )
    if failed:
        raise MemoryError("the total-variation kernel ran out of memory")
    return result
