"""The Sparse Transformation Layer at a fixed cost: one image size, so many steps, no decision that depends on the data.

Its forward is tensor operations in real arithmetic only, so that it can be exported and compiled whole, whatever strata
the images of a batch are of.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quasinat.arrays import Images, PerImageInt, State
from quasinat.errors import InputError, UsageError
from quasinat.export.fixed_admm import FixedADMM
from quasinat.export.fixed_strata import FixedStrata
from quasinat.export.low_pass import LowPass
from quasinat.layer import SparseTransformationLayer

STEPS = 80


class FixedState(NamedTuple):
    """Where a call ended, for the next image of a stream.

    Attributes:
        maps: the solver's, `B K H W`.
        members: the strata, `B`.
    """

    maps: State
    members: PerImageInt


class FixedLayer(nn.Module):
    """Images `B C H W` in [0, 1] of one size to T(x), nearer to the layer's the more steps; see `fixed`.

    It has no gradient: an attack belongs on the layer itself. It does not look at the values of its images.
    """

    def __init__(self, layer: SparseTransformationLayer, steps: int, height: int, width: int) -> None:
        super().__init__()
        filters = layer.filters
        self.channels, self.height, self.width = filters.shape[2], height, width
        self.normalise, self.split = layer.normalise, layer.split
        self.strata = None if layer.strata is None else FixedStrata(layer.strata, height, width)
        self.low_pass = LowPass(height, width, filters) if layer.split == "tikhonov" else None
        self.solver = FixedADMM(filters, layer.sparsity, steps, height, width)
        self.eval()

    @property
    def steps(self) -> int:
        """Iterations of the solver."""
        return self.solver.steps

    def train(self, mode: bool = True) -> "FixedLayer":
        """Stays in eval mode: nothing of it is to be trained."""
        return super().train(False)

    def forward(self, images: Images) -> Images:
        """T(x), each image on its own from the cold start."""
        return self.next(images)[0]

    def next(self, images: Images, start: FixedState | None = None) -> tuple[Images, FixedState]:
        """T(x) of the next image of each of B streams, and where it ended.

        Args:
            images: `B C H W`.
            start: of the call before. A stream whose stratum has changed starts afresh.

        Raises:
            InputError: images of another size or number of channels.
            UsageError: a gradient is asked for.
        """
        if images.shape[1:] != (self.channels, self.height, self.width):
            expected = f"{self.channels} x {self.height} x {self.width}"
            found = " x ".join(str(length) for length in images.shape[1:])
            raise InputError(f"images of {found}, not {expected}", "resize them, or fix the layer for their size")
        if torch.is_grad_enabled() and images.requires_grad:
            raise UsageError("a fixed layer has no gradient", "attack the layer that it was made of")
        with torch.no_grad():
            # `len` would make the size of the example batch a constant of the graph.
            members = (
                images.new_zeros(images.shape[0], dtype=torch.int64) if self.strata is None else self.strata(images)
            )
            coded = self._coded(images)
            maps = self.solver.cold(coded, members)
            if start is not None:
                same = (start.members == members)[:, None, None]
                maps = torch.where(same, start.maps.flatten(2), maps)
            left, maps = self.solver(coded, members, maps)
            # What passes and what is coded add up to the image: T(x) is the image less what the dictionary leaves.
            return self._normalised(images - left), FixedState(maps.unflatten(2, (self.height, self.width)), members)

    def _members(self, images: Images) -> PerImageInt:
        if self.strata is None:  # `len` would make the number of images a constant of the graph
            return images.new_zeros(images.shape[0], dtype=torch.int64)
        members: PerImageInt = self.strata(images)
        return members

    def _coded(self, images: Images) -> Images:
        if self.low_pass is not None:
            return images - self.low_pass(images)
        return images - 0.5 if self.split == "mid-grey" else images

    def _normalised(self, images: Images) -> Float[Tensor, "batch channels height width"]:
        if self.normalise == "max":
            images = images / images.flatten(1).amax(1).clamp_min(1 / 255).view(-1, 1, 1, 1)
        return images.clamp(0, 1)


def fixed(
    layer: SparseTransformationLayer, steps: int = STEPS, *, image_size: int | tuple[int, int] = 32
) -> FixedLayer:
    """The layer as a module of a fixed number of steps for images of one size, to export, to compile, or for streams.

    It shares the encoder of the strata, and has copies of everything else.

    Args:
        layer: any but one that refines its filters.
        steps: iterations of the ADMM; docs/export.md has the error and the time of some.
        image_size: one side in pixels, or height and width; each at least S.

    Raises:
        UsageError: a layer that refines, a size below that of the filters, or no step.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if layer.refine:
        problem = f"a layer with refine={layer.refine} learns filters from each image, which no fixed graph can"
        raise UsageError(problem, "make the layer with refine=0")
    if steps < 1:
        raise UsageError(f"{steps} steps code nothing", f"ask for at least one, such as {STEPS}")
    size = layer.filters.shape[-1]
    if min(height, width) < size:
        raise UsageError(f"images of {height} x {width} pixels are smaller than the filters ({size})", "name a larger")
    return FixedLayer(layer, steps, height, width)
