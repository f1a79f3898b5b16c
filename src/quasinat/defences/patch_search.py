"""The patches of a bank that are nearest to given ones: exactly, or within a known factor of the least distance.

All distances are computed in whole numbers, so a result depends on neither the batch, the threads nor the device.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from quasinat.errors import InputError, UsageError, did_you_mean

Search = Literal["exact", "fast"]
SLACKS: dict[str, float] = {"exact": 0.0, "fast": 1.0}
"""How much farther than the nearest patch a found one may be, as a share of the least distance."""

GRID = 256  # steps to a level of 8 bits; distances are between values rounded to 1 / (255 * GRID)
_LEAF = 384  # patches of a leaf, about; smaller ones prune better, but cost more calls
_AXES = 8  # along which a leaf is bounded
_NEAREST_LEAVES = 2  # that are looked at before any is ruled out
_BOUNDS_AT_ONCE = 2**24
_PATCHES_AT_ONCE = 2**16
_MARGIN = 0.01  # levels, by which a leaf is enlarged: more than the rounding of a coordinate in float32
_UNKNOWN = 2**62

Patches = Float[Tensor, "patches values"]
Stored = Shaped[Tensor, "bank values"]
Places = Int64[Tensor, "patches neighbours"]


def check_search(search: str) -> None:
    """Refuses a search that there is not."""
    if search not in SLACKS:
        raise UsageError(f"there is no search {search!r}", did_you_mean(search, list(SLACKS)))


def on_grid(values: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Values in [0, 1], or levels in uint8, as whole numbers of steps of 1 / (255 * GRID), in float64."""
    if values.dtype == torch.uint8:
        return values.double() * GRID
    return (values.double() * (255 * GRID)).round()


class PatchTree:
    """The patches of a bank, halved again and again at the median of their most varying coordinate.

    A leaf is a box in a few coordinates of the cosine transform over channels, rows and columns. A patch's distance
    from the box is a lower bound of its distances from all patches in the leaf, which is passed over if the bound is
    beyond what has been found already (Friedman, Bentley & Finkel 1977, here with the leaves one after another, and all
    patches that need a leaf at once).

    What a search of slack s finds is at most 1 + s times as far as the true neighbour (Arya et al. 1998). With s = 0 it
    is the true one, the first in the bank where several are as near. A patch that is in the bank is always found.

    Args:
        patches: of the bank, uint8 levels or values in [0, 1], one a row.
        shape: channels, rows and columns of a patch.

    Raises:
        InputError: a bank of more or larger patches than the whole numbers hold.
    """

    def __init__(self, patches: Stored, shape: tuple[int, int, int]) -> None:
        count, values = patches.shape
        depth = max(round(math.log2(count / _LEAF)), 0)
        self.count, self.bits = count, (-(-count >> depth)).bit_length()
        farthest = values * (255 * GRID) ** 2
        if farthest * count >= _UNKNOWN or (farthest + 1) << self.bits >= 2**51:
            raise InputError(f"{count} patches of {values} values are too many", "make a smaller bank")
        # Squared distances between levels are sums of fewer than 2^24 units here, which float32 holds.
        self.coarse = torch.float32 if 3 * values * 255**2 < 2**24 else torch.float64
        axes = _cosines(*shape).to(patches.device)
        variances = (on_grid(patches[:_PATCHES_AT_ONCE]) @ axes.T).var(0, correction=0)
        self.axes = axes[variances.argsort(descending=True, stable=True)[:_AXES]]
        # The cosines are rounded, so they stretch distances a little: by `stretch` at most.
        self.stretch = float(torch.linalg.matrix_norm(self.axes.cpu(), 2)) * GRID
        parts = patches.split(_PATCHES_AT_ONCE)
        coordinates = torch.cat([on_grid(part) @ self.axes.T for part in parts])
        self.members = _halved(coordinates, torch.arange(count, device=patches.device), depth)
        boxes = [(coordinates[leaf].amin(0), coordinates[leaf].amax(0)) for leaf in self.members]
        self.low = (torch.stack([low for low, _ in boxes]) / self.stretch - _MARGIN).float()
        self.high = (torch.stack([high for _, high in boxes]) / self.stretch + _MARGIN).float()
        kept = patches if patches.dtype == torch.uint8 else torch.cat([on_grid(part).int() for part in parts])
        self.leaves = [kept[leaf] for leaf in self.members]
        self.squares, self.coarse_squares, lost = [], [], []
        for leaf in range(len(self.leaves)):
            steps, levels = self._steps(leaf), self._levels(leaf)
            self.squares.append(steps.square().sum(1))
            self.coarse_squares.append(levels.square().sum(1))
            lost.append((steps / GRID - levels).square().sum(1).amax())
        self.rounding = float(torch.stack(lost).amax().sqrt())

    def nearest(self, patches: Patches, neighbours: int = 1, slack: float = 0.0) -> Places:
        """Places in the bank of the nearest patches in Euclidean distance, nearest first.

        Args:
            patches: values in [0, 1], one a row, on the tree's device.
            neighbours: how many, at most as many as the bank has.
            slack: a found patch is at most `1 + slack` times as far as the true neighbour of its rank.
        """
        parts = patches.split(max(_BOUNDS_AT_ONCE // len(self.leaves), 1))
        return torch.cat([self._nearest(part, neighbours, slack) for part in parts])

    def _nearest(self, patches: Patches, neighbours: int, slack: float) -> Places:
        sought = _sought(patches, 2 ** (self.bits + 1), self.rounding, self.coarse)
        bounds = self._bounds(sought.steps)
        # Everything that ties with the last of the nearest leaves is near, so that the order of ties does not matter.
        few = min(_NEAREST_LEAVES, len(self.leaves))
        near = bounds <= bounds.topk(few, dim=1, largest=False).values[:, -1:]
        bounds, near = bounds.T.contiguous(), near.T.contiguous()
        best = torch.full((len(patches), neighbours), _UNKNOWN, device=patches.device)
        for leaf, needed in enumerate(near):
            self._look(leaf, needed.nonzero()[:, 0], sought, best)
        bounds[near] = torch.inf
        reach = self._reach(best)
        for leaf, bound in enumerate(bounds):
            rows = (bound * (1 + slack) ** 2 <= reach).nonzero()[:, 0]
            rows = rows[self._could_hold(leaf, rows, sought, reach)]
            self._look(leaf, rows, sought, best)
            reach[rows] = self._reach(best[rows])
        return best % self.count

    def _bounds(self, steps: Float[Tensor, "patches values"]) -> Float[Tensor, "patches leaves"]:
        """Lower bounds of the squared distances from the leaves, in levels: the distances from their boxes."""
        coordinates = (steps @ self.axes.T / self.stretch).float()
        bounds = coordinates.new_empty(len(steps), len(self.leaves))
        rows = max(2**16 // len(self.leaves), 1)  # at once, so that it stays in the cache
        for part, into in zip(coordinates.split(rows), bounds.split(rows), strict=True):
            into.zero_()
            for axis, low, high in zip(part.T, self.low.T, self.high.T, strict=True):
                outside = torch.maximum(low - axis[:, None], axis[:, None] - high).clamp_(min=0)
                into += outside.mul_(outside)
        return bounds

    def _reach(self, best: Places) -> Float[Tensor, "patches"]:
        """The largest squared distance found, in levels, rounded up."""
        return (best[:, -1] // self.count + 1).float() * ((1 + 1e-5) / GRID**2)

    def _could_hold(
        self, leaf: int, rows: Int64[Tensor, "rows"], sought: "_Sought", reach: Float[Tensor, "patches"]
    ) -> Shaped[Tensor, "rows"]:
        """Where a leaf may hold something as near as what is found, by distances between values rounded to 8 bits.

        They are whole numbers that the type holds, so that sums in any order are exact; a level has 8 bits, so that the
        short cuts that a GPU may take with float32 are, too. Rounding moves the two ends of a distance, and lengthens
        it by as much at most.
        """
        products = torch.addmm(self.coarse_squares[leaf], sought.levels[rows], self._levels(leaf).T, alpha=-2)
        distances = (products.amin(1) + sought.coarse_squares[rows]).double().sqrt()
        return distances * (1 - 1e-5) - sought.rounding[rows] <= reach[rows].sqrt()

    def _look(self, leaf: int, rows: Int64[Tensor, "rows"], sought: "_Sought", best: Places) -> None:
        """Compares some patches with a leaf's; the keys in `best` are squared distance * count + place in the bank.

        Within the leaf a key is squared distance * 2^bits + number, the distance without the sought patch's own square.
        """
        if not len(rows):
            return
        numbers = torch.arange(len(self.members[leaf]), device=rows.device)
        own = self.squares[leaf] * 2**self.bits + numbers
        keys = torch.addmm(own, sought.scaled[rows], self._steps(leaf).T)  # exact: whole numbers below 2^53
        few = min(best.shape[1], len(numbers))
        found = (keys.amin(1, keepdim=True) if few == 1 else keys.topk(few, dim=1, largest=False).values).long()
        squares = (found >> self.bits) + sought.squares[rows, None]
        found = squares * self.count + self.members[leaf][found & (2**self.bits - 1)]
        both = torch.cat([best[rows], found], dim=1)
        best[rows] = both.amin(1, keepdim=True) if best.shape[1] == 1 else both.sort(1).values[:, : best.shape[1]]

    def _steps(self, leaf: int) -> Float[Tensor, "members values"]:
        patches = self.leaves[leaf]
        return patches.double() * GRID if patches.dtype == torch.uint8 else patches.double()

    def _levels(self, leaf: int) -> Float[Tensor, "members values"]:
        patches = self.leaves[leaf]
        return patches.to(self.coarse) if patches.dtype == torch.uint8 else (patches / GRID).round().to(self.coarse)


@dataclass(frozen=True)
class _Sought:
    """The patches that are sought."""

    steps: Float[Tensor, "patches values"]
    squares: Int64[Tensor, "patches"]
    scaled: Float[Tensor, "patches values"]
    levels: Float[Tensor, "patches values"]
    coarse_squares: Float[Tensor, "patches"]
    rounding: Float[Tensor, "patches"]


def _sought(patches: Patches, scale: int, rounding: float, coarse: torch.dtype) -> _Sought:
    steps = on_grid(patches)
    levels = (steps / GRID).round()
    lost = (steps / GRID - levels).square().sum(1).sqrt() + rounding
    near = levels.to(coarse)
    squares = steps.square().sum(1).long()
    return _Sought(steps, squares, steps * -scale, near, near.square().sum(1), lost * (1 + 1e-5))


def _cosines(channels: int, rows: int, columns: int) -> Float[Tensor, "values values"]:
    """The orthonormal cosine transform of a patch, in whole 1,024ths: coordinates of whole numbers are exact."""

    def along(size: int) -> Tensor:
        places = torch.arange(size, dtype=torch.float64)
        waves = torch.cos(math.pi / size * places[:, None] * (places + 0.5)) * math.sqrt(2 / size)
        waves[0] /= math.sqrt(2)
        return waves

    return (torch.kron(torch.kron(along(channels), along(rows)), along(columns)) * 1024).round()


def _halved(coordinates: Tensor, members: Tensor, depth: int) -> list[Tensor]:
    """The places of each leaf's patches, in ascending order."""
    if depth == 0:
        return [members]
    own = coordinates[members]
    order = own[:, int(own.var(0, correction=0).argmax())].sort(stable=True).indices
    halves = order.tensor_split([len(order) // 2])
    return [leaf for half in halves for leaf in _halved(coordinates, members[half.sort().values], depth - 1)]
