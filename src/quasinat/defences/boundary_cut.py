"""The minimum-error boundary cut: where one patch ends and the next begins (Efros & Freeman 2001, section 2.1)."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

Errors = Int64[Tensor, "patches size size"]
Overlaps = Int64[Tensor, "patches"]
Costs = Int64[Tensor, "sides patches size size"]

_FAR = 2**48
"""The cost of a pixel outside the overlap: more than that of any path inside it."""


def takes_new(errors: Errors, left: Overlaps, top: Overlaps) -> Bool[Tensor, "patches size size"]:
    """Which pixels of each new patch are kept, by the cheapest boundary through its overlaps with what is there.

    Efros & Freeman (2001), "Image Quilting for Texture Synthesis and Transfer", section 2.1, by their dynamic program:
    E[i, j] = e[i, j] + min(E[i + 1, j - 1], E[i + 1, j], E[i + 1, j + 1]), and the path is traced back. A boundary
    through the left overlap has one pixel in each row, in neighbouring rows at most one column apart; the pixel and
    those to its right are the new patch's. Through the top overlap it is the same with rows and columns exchanged.

    With both overlaps "the minimal paths meet in the middle and the overall minimum is chosen": the boundary is one
    L-shaped path that bends at a pixel (d, d) of the corner where the overlaps cross. From there one branch goes down
    to the last row and the other goes right to the last column. A pixel is the new patch's if it is not left of the
    first branch and not above the second; beyond the bend, rows above d are cut by the second branch alone, and columns
    left of d by the first. The cost is the sum of e over the L's pixels, the bend counted once.

    Among equally cheap boundaries the one whose bend, and then each next pixel, is nearest to the upper left is taken.

    Args:
        errors: e, `N S S`: squared differences of the new patch and what is there, in whole numbers below 2^44.
        left: columns, from the left, that the patch shares with what is there; from 0 to S.
        top: rows, from the top.
    """
    size = errors.shape[1]
    index = torch.arange(size, device=errors.device)
    overlaps = torch.stack([left, top])
    sides = torch.stack([errors, errors.mT])  # of both, the path goes down its rows
    inside = index < overlaps[:, :, None, None]
    costs = _to_the_end(sides.where(inside, _FAR))
    # Where each path starts: at the bend if there is one, else in the first row.
    bends = costs.diagonal(dim1=2, dim2=3).sum(0) - errors.diagonal(dim1=1, dim2=2)
    corner = (overlaps > 0).all(0)
    row = torch.where(corner, _lowest(bends), 0).expand(2, -1)
    column = torch.where(corner, row, _lowest(costs[:, :, 0]))
    first = torch.where(overlaps[:, :, None] > 0, _traced(costs, row, column), 0)
    return (index >= first[0, :, :, None]) & (index[:, None] >= first[1, :, None, :])


def _to_the_end(errors: Costs) -> Costs:
    """The cost of the cheapest path from each pixel to the last row, both ends counted."""
    rows = [errors[:, :, -1]]
    for row in reversed(errors.unbind(2)[:-1]):
        beyond = torch.nn.functional.pad(rows[-1], (1, 1), value=_FAR)
        cheapest = torch.minimum(torch.minimum(beyond[..., :-2], beyond[..., 1:-1]), beyond[..., 2:])
        rows.append(row + cheapest)
    return torch.stack(rows[::-1], dim=2)


def _traced(costs: Costs, row: Tensor, column: Tensor) -> Int64[Tensor, "sides patches size"]:
    """The path's column in each row from (row, column) on; above that, the column after the start's."""
    index = torch.arange(costs.shape[3], device=costs.device)
    path, current = [], column
    for number, here in enumerate(costs.unbind(2)):
        reachable = (index - current[..., None]).abs() <= 1
        current = torch.where(row < number, _lowest(here.where(reachable, 4 * _FAR * costs.shape[3])), column)
        path.append(torch.where(row > number, column + 1, current))
    return torch.stack(path, dim=2)


def _lowest(costs: Int64[Tensor, "*many size"]) -> Int64[Tensor, "*many"]:
    """The first place of the least cost (`argmin` may give any)."""
    size = costs.shape[-1]
    return (costs * size + torch.arange(size, device=costs.device)).amin(-1) % size
