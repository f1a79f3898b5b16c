"""The ADMM of `admm.py` with one state tensor and convolutions in space, in Triton: the solver for CUDA devices.

The iterates are those of `ADMM` at a fixed penalty (the paper, Eq. 2; Wohlberg 2016). With p = y + u, u = clip(p, t),
t = lambda / rho and y = p - u a step is

    w <- F^-1 [(rho I + D D^H)^-1 F (s - D (y - u))]      on the C channels only
    p <- p + alpha (D^T w - u)

in which only D and D^T see the K maps. Taken by Fourier transforms, as `ADMM` takes them, they go through memory many
times; as convolutions in space, with the pointwise work inside them, a step reads p twice and writes it once
(`bytes_per_step`), and there are `flops_per_step` to do meanwhile.

The kernels are in `_kernels/fused_admm_triton.py`. What they do on a GPU is in docs/performance.md.
"""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.arrays import Codes, Images, Kernels, PerImage, PerImageBool, State
from quasinat.errors import UsageError
from quasinat.sparse_coding.convolution import filter_spectra, from_spectra, to_spectra, wrap_around
from quasinat.sparse_coding.frequency_solve import apply_kernel, gram, woodbury_kernel
from quasinat.sparse_coding.problem import SparseCodingProblem

Precision = Literal["ieee", "tf32x3", "tf32"]
STORAGE = (torch.float32, torch.float16, torch.bfloat16)


class Prepared(NamedTuple):
    """What stays the same over the iterations.

    Attributes:
        images: s.
        synthesis: the filters as D takes them, `dy (c,dx) k`, and
        analysis: as D^T takes them, `k (c,dy,dx)`; both with zeros up to whole blocks.
        kernel: (rho I + D D^H)^-1 per frequency, the same for all images.
        threshold: lambda / rho.
    """

    images: Images
    synthesis: Float[Tensor, "size _ _"]
    analysis: Float[Tensor, "_ _"]
    kernel: Kernels
    threshold: float

    def keep(self, active: PerImageBool | slice) -> "Prepared":
        """The same for some of the images only."""
        return self._replace(images=self.images[active])


@dataclass(frozen=True)
class FusedADMM:
    """Hyperparameters of the solver.

    Its state is p, `B K H W`. Its steps are not differentiable; they do not change the state that they are given.

    Args:
        tolerance: an image is done when its relative primal and dual residuals are both under it.
        max_steps: iterations at most.
        penalty: rho > 0; `None` is 25 lambda. It stays fixed.
        relaxation: alpha, in (0, 2).
        check_every: steps between residual checks.
        storage: the dtype in which the state waits between steps, float32, or float16 or bfloat16 (half the memory and
            traffic). The arithmetic is in float32. A state in float16 cannot meet tolerances below about 4e-4, nor hold
            codes above 65504; one in bfloat16 none below 7e-3.
        precision: of the products in D and D^T: "ieee" is float32; "tf32x3", by three products on tensor cores, is
            close to it; "tf32" keeps 10 bits of each factor, and its iterates are not quite those of `ADMM`.

    Raises:
        UsageError: a value outside its range.
    """

    name: ClassVar[str] = "fused-admm"
    tolerance: float = 1e-3
    max_steps: int = 500
    penalty: float | None = None
    relaxation: float = 1.8
    check_every: int = 5
    storage: torch.dtype = torch.float32
    precision: Precision = "ieee"

    def __post_init__(self) -> None:
        ranges = {
            "tolerance": self.tolerance >= 0,
            "max_steps": self.max_steps >= 0,
            "penalty": self.penalty is None or self.penalty > 0,
            "relaxation": 0 < self.relaxation < 2,
            "check_every": self.check_every >= 1,
            "storage": self.storage in STORAGE,
            "precision": self.precision in get_args(Precision),
        }
        for name, valid in ranges.items():
            if not valid:
                found = f"FusedADMM({name}={getattr(self, name)}) is out of range"
                raise UsageError(found, f"leave {name} at its default")

    def prepare(self, problem: SparseCodingProblem) -> Prepared:
        """The matrices of the filters and the kernel of a circular problem.

        Raises:
            UsageError: the solver cannot run here, or not on this problem; says why.
        """
        reason = unsuitable(problem)
        if reason:
            raise UsageError(f"FusedADMM cannot run: {reason}", "use ADMM()")
        if torch.is_grad_enabled() and (problem.images.requires_grad or problem.filters.requires_grad):
            raise UsageError("the steps of FusedADMM give no gradient", "prepare under torch.no_grad(), or use ADMM()")
        from quasinat.sparse_coding._kernels import fused_admm_triton as kernels

        penalty = self.penalty or 25 * problem.sparsity or 1.0
        return Prepared(
            images=problem.images.contiguous(),
            synthesis=kernels.synthesis_matrix(problem.filters),
            analysis=kernels.analysis_matrix(problem.filters),
            kernel=woodbury_kernel(gram(filter_spectra(problem.filters, *problem.images.shape[-2:])), penalty),
            threshold=problem.sparsity / penalty,
        )

    def init(self, problem: SparseCodingProblem) -> State:
        """The cold start: y = u = 0."""
        return problem.images.new_zeros(problem.codes_shape(), dtype=self.storage)

    def load(self, problem: SparseCodingProblem, maps: State) -> State:
        """The state that the maps of an earlier `Solution.state` hold, this solver's or that of `ADMM`."""
        return maps.to(self.storage, copy=True, memory_format=torch.contiguous_format)

    def maps(self, prepared: Prepared, state: State) -> State:
        """What a `Solution` keeps of a state; the inverse of `load`."""
        return state

    def step(self, prepared: Prepared, state: State) -> State:
        """One iteration, p <- p + alpha (x - y), into a new tensor."""
        from quasinat.sparse_coding._kernels import fused_admm_triton as kernels

        state, threshold = state.contiguous(), prepared.threshold
        residual = kernels.residual(state, prepared.images, prepared.synthesis, threshold, self.precision)
        w = from_spectra(apply_kernel(prepared.kernel, to_spectra(residual)), *state.shape[-2:])
        w = wrap_around(w, len(prepared.synthesis)).contiguous()
        return kernels.update(state, w, prepared.analysis, threshold, self.relaxation, self.precision)

    def sparse(self, prepared: Prepared, state: State) -> Codes:
        """y = soft(p, lambda / rho), the sparse variable of a state, in the images' dtype."""
        p = state.to(prepared.images.dtype)
        return p - p.clamp(-prepared.threshold, prepared.threshold)

    def residual(self, prepared: Prepared, before: State, after: State) -> PerImage:
        """The larger of the relative primal and dual residuals of the step from `before` to `after`, as `ADMM` has it.

        r = ||x - y|| / max(||x||, ||y||) and s = ||y_before - y|| / ||u|| (Wohlberg 2017, eq. 11-14). Where the
        denominator is zero (u, if lambda is) the residual is the absolute one.
        """
        from quasinat.sparse_coding._kernels import fused_admm_triton as kernels

        states = before.contiguous(), after.contiguous()
        squares = kernels.squared_norms(*states, prepared.threshold, self.relaxation)
        primal, x, y, dual, u = (square.sqrt() for square in squares)
        return torch.maximum(_ratio(primal, torch.maximum(x, y)), _ratio(dual, u))


def available(device: torch.device) -> str | None:
    """`None` where the solver can run on that device, else why it cannot, in one line."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if os.environ.get("TRITON_INTERPRET", "").lower() in {"1", "on", "true", "yes", "y"}:
        return None
    if device.type != "cuda":
        return f"its kernels need a CUDA device, and this is {device.type}"
    if not torch.cuda.is_available():
        return "its kernels need a CUDA device, and this machine has none"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton finds no C compiler (gcc or clang), with which it builds its launcher"
    return None


def unsuitable(problem: SparseCodingProblem) -> str | None:
    """Why this solver cannot solve a problem; `None` where it can."""
    images, filters = problem.images, problem.filters
    reason = available(images.device)
    if reason:
        return reason
    if images.dtype != torch.float32:
        return f"it computes in float32, and the images are {images.dtype}"
    if problem.mask is not None:
        return "the problem has a mask"
    _, count, height, width = problem.codes_shape()
    if max(count, filters.shape[1] * filters.shape[2]) * height * width >= 2**31:
        return f"{count} maps of {height} x {width} pixels are more than its 32-bit places can tell apart"
    return None


def bytes_per_step(
    batch: int, filters: int, channels: int, size: int, height: int, width: int, storage: torch.dtype = torch.float32
) -> int:
    """The least traffic with memory that the algorithm allows, in bytes a step: the floor to measure against.

    The state is read twice and written once. The scratch of D, C S maps in float32, is written and read once. On the C
    channels: s is read, and the residual and w each written and read once; so are the half spectra before and after the
    kernel, as if a Fourier transform were one pass; the kernel is read once for the batch. The filters stay in the
    cache, the maps too between the S reads of a tile.
    """
    pixels, spectrum = height * width, height * (width // 2 + 1)
    state = 3 * filters * pixels * storage.itemsize
    scratch = 2 * channels * size * pixels * 4
    images = 5 * channels * pixels * 4 + 4 * channels * spectrum * 8
    return batch * (state + scratch + images) + channels**2 * spectrum * 8


def flops_per_step(batch: int, filters: int, channels: int, size: int, height: int, width: int) -> int:
    """The operations of D and D^T in a step, a multiplication and an addition counted as two; the rest is far less."""
    return 2 * 2 * batch * filters * channels * size**2 * height * width


def _ratio(numerator: PerImage, denominator: PerImage) -> PerImage:
    return numerator / torch.where(denominator == 0, 1, denominator)
