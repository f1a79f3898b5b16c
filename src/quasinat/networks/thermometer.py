"""Thermometer encoding (Buckman, Roy, Raffel & Goodfellow 2018): a pixel as a row of bits, and how to differentiate it.

The encoding is a step function: its derivative is zero wherever there is one. Which derivative stands for it is a name:

| backward | derivative of bit k | what it is worth to an attack |
| --- | --- | --- |
| `relaxation` | that of min(max(x - k / levels, 0), 1): 1 where x > k / levels, else 0 | the published way |
| `smoothed` | of its mean over x + u, abs(u) < 1/8: 4 where abs(x - k / levels) < 1/8 | follows the bits within reach |
| `nearest` | `levels` where abs(x - k / levels) < 1 / (2 levels), else 0 | follows the one bit that is nearest |
| `straight-through` | 1 everywhere | pixels of the lowest level, without a bit set, have a gradient too |
| `none` | 0 everywhere | the true one: nothing |

The relaxation is that of Athalye, Carlini & Wagner (2018, section 5.1.1). It follows the bits that are set, however
far their thresholds are from x, and none of those that a brighter pixel would set: on a small network that tells dark
images from bright ones PGD along it fails where `smoothed` breaks every image (a test holds that). So that is the
default. `nearest`, a window of half a level either way, sees less far and is exact closer by: it is the stronger of the
two where the budget is about a level and the weaker where it is several. An evaluation takes, of each image, the worse.
"""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images
from quasinat.errors import UsageError, did_you_mean

LEVELS = 16
MOST_LEVELS = 256  # images of 8 bits have no more
BACKWARDS = ("smoothed", "nearest", "relaxation", "straight-through", "none")
SMOOTHING = 1 / 8  # two levels of sixteen
Code = Float[Tensor, "batch channels_times_levels height width"]


def thermometer(images: Images, levels: int = LEVELS, *, backward: str = "smoothed") -> Code:
    """tau(x)_k = 1 if x > k / levels, else 0, for k = 1 ... levels (Athalye, Carlini & Wagner 2018, section 5.1.1).

    Of ten levels tau(0.66) is 1111110000. The levels are the intervals (j / levels, (j + 1) / levels], the lowest with
    0 in it.

    What differs from the source, and why: the bits of Buckman et al. are these with ones and zeros exchanged; this is
    the form whose relaxation is known. Either way one bit of `levels` is the same for every pixel, here the last.

    Args:
        images: `B C H W` in [0, 1].
        levels: 2 to 256; 16 in the paper's experiments.
        backward: of `BACKWARDS`.

    Returns:
        `B (C levels) H W`, the bits of a channel next to each other, as floating point.

    Raises:
        UsageError: `levels` outside 2 to 256, or an unknown `backward`.
    """
    check_thermometer(levels, backward)
    code: Code = _Encoding.apply(images, levels, backward)
    return code


def read_thermometer(code: Code, levels: int = LEVELS) -> Images:
    """The images as far as the code tells: each pixel the middle of its level, (ones + 1/2) / levels."""
    return (code.unflatten(1, (-1, levels)).sum(2) + 0.5) / levels


def check_thermometer(levels: int, backward: str) -> None:
    """Refuses too few levels or too many, and an unknown derivative."""
    if not 2 <= levels <= MOST_LEVELS:
        raise UsageError(f"a thermometer of {levels} levels makes no sense", f"give 2 to {MOST_LEVELS}")
    if backward not in BACKWARDS:
        raise UsageError(f"unknown derivative {backward!r} of the encoding", did_you_mean(backward, list(BACKWARDS)))


class Thermometer(nn.Module):
    """`thermometer` as the first layer of a network, in the place of `Normalise`; it has no tensors.

    Args:
        levels: how many, 2 to 256.
        backward: which derivative, see `thermometer`.
    """

    def __init__(self, levels: int = LEVELS, *, backward: str = "smoothed") -> None:
        check_thermometer(levels, backward)
        super().__init__()
        self.levels, self.backward = levels, backward

    def forward(self, images: Images) -> Code:
        return thermometer(images, self.levels, backward=self.backward)


def with_backward(network: nn.Module, backward: str) -> nn.Module:
    """The same network, sharing its tensors, with another derivative of every `Thermometer` in it.

    Raises:
        UsageError: an unknown `backward`, or a network without the encoding.
    """
    check_thermometer(LEVELS, backward)
    if not any(isinstance(module, Thermometer) for module in network.modules()):
        problem = f"the {type(network).__name__} has no thermometer encoding to differentiate"
        raise UsageError(problem, "build it with encoding='thermometer'")
    changed: nn.Module = _with_backward(network, backward)
    return changed


def _with_backward(module: Any, backward: str) -> Any:
    other = copy.copy(module)
    other._modules = {name: part and _with_backward(part, backward) for name, part in module._modules.items()}
    if isinstance(other, Thermometer):
        other.backward = backward
    return other


class _Encoding(torch.autograd.Function):
    """Forward the bits, backward what stands for their derivative."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, levels: int, backward: str) -> Tensor:
        ctx.levels, ctx.backward = levels, backward
        ctx.save_for_backward(images)
        return _bits(images, levels).to(images.dtype).flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        (images,) = ctx.saved_tensors
        if ctx.backward == "none":
            return torch.zeros_like(images), None, None
        each = gradient.unflatten(1, (images.shape[1], ctx.levels))
        if ctx.backward == "relaxation":  # whose derivative is the code itself: no x is above 1 + k / levels
            each = each * _bits(images, ctx.levels)
        elif ctx.backward in ("smoothed", "nearest"):
            reach = SMOOTHING if ctx.backward == "smoothed" else 1 / (2 * ctx.levels)
            each = each * (_above(images, ctx.levels).abs() < reach) / (2 * reach)
        return each.sum(2), None, None


def _bits(images: Tensor, levels: int) -> Tensor:
    """Whether each pixel is above each threshold, `B C levels H W`."""
    return _above(images, levels) > 0


def _above(images: Tensor, levels: int) -> Tensor:
    """How far each pixel is above each threshold, `B C levels H W`."""
    thresholds = torch.arange(1, levels + 1, device=images.device, dtype=images.dtype) / levels
    return images[:, :, None] - thresholds[:, None, None]
