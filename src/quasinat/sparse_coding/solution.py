"""The answer of a solver: codes, reconstruction and, per image, how well the problem was solved."""

from dataclasses import dataclass
from enum import IntEnum

from quasinat.arrays import Codes, Images, PerImage, PerImageInt


class Result(IntEnum):
    """How the solver ended on one image."""

    converged = 0
    max_steps_reached = 1
    not_finite = 2


@dataclass(frozen=True)
class Solution:
    """What a solver returns; every statistic is per image.

    Attributes:
        codes: the sparse variable z, `B K H W`.
        reconstruction: sum_k f_{k,c} (*) z_k, `B C H W`: T(x) of Eq. (2). It is unique even where z is not.
        objective: Eq. (2) at `codes`.
        steps: iterations used.
        result: a `Result` each, as an integer tensor.
        state: the solver's own variable, to start a neighbouring problem from.
    """

    codes: Codes
    reconstruction: Images
    objective: PerImage
    steps: PerImageInt
    result: PerImageInt
    state: Codes

    @property
    def density(self) -> float:
        """The share of codes that are not zero."""
        return float((self.codes != 0).double().mean())
