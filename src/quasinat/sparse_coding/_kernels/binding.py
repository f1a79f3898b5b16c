"""The compiled kernels, seen from Python: found, loaded, and called on tensors.

`coordinate_descent.cpp` and `statistics.cpp` are built into the package as one extension module with plain C functions
in it, which are called through ctypes (so the interpreter's lock is released while they run).
"""

import ctypes
import functools
import importlib.util
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

MODULE = "quasinat.sparse_coding._kernels._coordinate_descent"
LEVELS = ("baseline", "AVX2", "AVX-512")
SUFFIXES = {torch.float32: "f32", torch.float64: "f64"}


class Shape(Structure):
    """`Shape` of the kernel."""

    _fields_ = [(name, c_int64) for name in ("batch", "channels", "height", "width", "filters", "size")]


class Options(Structure):
    """`Options` of the kernel."""

    _fields_ = [
        *((name, c_double) for name in ("sparsity", "tolerance", "inner")),
        *((name, c_int64) for name in ("max_steps", "passes", "threads")),
    ]


class _Sparse(Structure):
    _fields_ = [(name, c_void_p) for name in ("offsets", "places", "values")]


class _Report(Structure):
    _fields_ = [
        (name, c_void_p)
        for name in ("reconstruction", "objective", "gap", "violation", "steps", "result", "count", "visits")
    ]


class SparseCodes(NamedTuple):
    """Codes of a batch: image i has the entries offsets[i] .. offsets[i + 1]; place = (k H + y) W + x, ascending."""

    offsets: Tensor
    places: Tensor
    values: Tensor


class Report(NamedTuple):
    """What the kernel says of each image."""

    reconstruction: Tensor
    objective: Tensor
    gap: Tensor
    violation: Tensor
    steps: Tensor
    result: Tensor
    entries: Tensor
    visits: Tensor


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded kernels, or `None` where they were not built, or from other sources, or cannot be loaded."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        return None
    try:
        return _declared(ctypes.CDLL(spec.origin))
    except (OSError, AttributeError):
        return None


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions.

    Raises:
        AttributeError: it lacks one of them.
    """
    for suffix in SUFFIXES.values():
        solve, take, span = (getattr(loaded, f"quasinat_{name}_{suffix}") for name in ("solve", "take", "span"))
        solve.restype, take.restype, span.restype = c_void_p, None, c_int
        solve.argtypes = [POINTER(Shape), c_void_p, c_void_p, POINTER(Options), POINTER(_Sparse), POINTER(_Report)]
        take.argtypes = [c_void_p, c_void_p, c_void_p]
        span.argtypes = [POINTER(Shape), c_void_p, c_void_p, POINTER(Options), POINTER(_Sparse), *[c_void_p] * 3]
        sums = getattr(loaded, f"quasinat_statistics_{suffix}")
        sums.argtypes = [POINTER(Shape), *[c_void_p] * 4, c_int64, *[c_void_p] * 3]
    loaded.quasinat_set_level.argtypes = [c_int]
    return loaded


def instruction_set() -> str | None:
    """The instruction set that the kernel uses here, or `None` without a kernel."""
    loaded = library()
    return None if loaded is None else LEVELS[loaded.quasinat_level()]


def solve(images: Tensor, filters: Tensor, options: Options, start: SparseCodes | None) -> tuple[SparseCodes, Report]:
    """Runs the solver on contiguous CPU tensors `B C H W` and `K C S S` of one dtype, float32 or float64."""
    shape, suffix, loaded = _shape_of(images, filters), SUFFIXES[images.dtype], _loaded()
    batch = len(images)
    doubles = [torch.empty(batch, dtype=torch.float64) for _ in range(3)]
    integers = [torch.empty(batch, dtype=torch.int64) for _ in range(4)]
    report = Report(torch.empty_like(images), *doubles, *integers)
    handle = getattr(loaded, f"quasinat_solve_{suffix}")(
        byref(shape),
        images.data_ptr(),
        filters.data_ptr(),
        byref(options),
        byref(_pointers(start)),
        byref(_Report(*(tensor.data_ptr() for tensor in report))),
    )
    if handle is None:
        raise MemoryError("the coordinate descent kernel ran out of memory")
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), report.entries.cumsum(0)])
    places = torch.empty(int(offsets[-1]), dtype=torch.int64)
    values = torch.empty(len(places), dtype=images.dtype)
    getattr(loaded, f"quasinat_take_{suffix}")(handle, places.data_ptr(), values.data_ptr())
    return SparseCodes(offsets, places, values), report


def span(images: Tensor, filters: Tensor, options: Options, support: SparseCodes) -> tuple[Tensor, Tensor, Tensor]:
    """The projection of images on the span of each one's active atoms, its coefficients, and the steps taken."""
    shape, suffix, loaded = _shape_of(images, filters), SUFFIXES[images.dtype], _loaded()
    projected, coefficients = torch.empty_like(images), torch.empty_like(support.values)
    steps = torch.empty(len(images), dtype=torch.int64)
    failed = getattr(loaded, f"quasinat_span_{suffix}")(
        byref(shape),
        images.data_ptr(),
        filters.data_ptr(),
        byref(options),
        byref(_pointers(support)),
        projected.data_ptr(),
        coefficients.data_ptr(),
        steps.data_ptr(),
    )
    if failed:
        raise MemoryError("the coordinate descent kernel ran out of memory")
    return projected, coefficients, steps


def statistics(
    images: Tensor, codes: SparseCodes, filters: int, size: int, threads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Correlations `K K 2S-1 2S-1`, cross `K C S S` and energy of contiguous CPU images `B C H W` and codes of K maps.

    All of one dtype, float32 or float64; sums are double inside, in one more table of half as many numbers. What comes
    out does not depend on the number of threads.
    """
    shape, suffix, loaded = Shape(*images.shape, filters, size), SUFFIXES[images.dtype], _loaded()
    lags = 2 * size - 1
    correlations = images.new_empty(filters, filters, lags, lags)
    cross = images.new_empty(filters, images.shape[1], size, size)
    energy = torch.empty((), dtype=torch.float64)
    failed = getattr(loaded, f"quasinat_statistics_{suffix}")(
        byref(shape),
        images.data_ptr(),
        *(tensor.data_ptr() for tensor in codes),
        threads,
        correlations.data_ptr(),
        cross.data_ptr(),
        energy.data_ptr(),
    )
    if failed:
        raise MemoryError("the statistics kernel ran out of memory")
    return correlations, cross, energy.to(images.dtype)


def _loaded() -> ctypes.CDLL:
    loaded = library()
    if loaded is None:
        raise RuntimeError("the coordinate descent kernel is not built")
    return loaded


def _shape_of(images: Tensor, filters: Tensor) -> Shape:
    return Shape(*images.shape, filters.shape[0], filters.shape[-1])


def _pointers(codes: SparseCodes | None) -> _Sparse:
    return _Sparse() if codes is None else _Sparse(*(tensor.data_ptr() for tensor in codes))
