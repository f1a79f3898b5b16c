"""Matching pursuit of many signals at once: each as a combination of a few atoms, found greedily."""

import torch
from jaxtyping import Float
from torch import Tensor

from quasinat.attacks.checks import check_count

Signals = Float[Tensor, "signals values"]
Atoms = Float[Tensor, "atoms values"]

CORRELATIONS_AT_ONCE = 2**24
"""Numbers of a block's signals times atoms: 64 MB in float32."""

_DEPENDENT = 1e-4  # an atom with less than this outside the span of those before it adds rounding, not direction


def matching_pursuit(signals: Signals, atoms: Atoms, sparsity: int, *, orthogonal: bool = False) -> Signals:
    """Each signal's approximation by at most `sparsity` atoms.

    Step by step, the atom that correlates most with the residual r, in absolute value, is found, and r's part along it
    is taken away: r <- r - (r . a) a (Mallat & Zhang 1993, "Matching Pursuits with Time-Frequency Dictionaries",
    section II). A plain pursuit may come back to an atom. The orthogonal one takes away r's part along what is new in
    a, so that r is always orthogonal to every atom found: the approximation is the least-squares one on these atoms
    (Pati, Rezaiifar & Krishnaprasad 1993, "Orthogonal Matching Pursuit").

    The correlations are computed anew in each step, in blocks of signals: to update them instead would take the atoms'
    Gram matrix, of 6.4 GB for 40,000 of them.

    Args:
        signals: on the device and of the type of the atoms.
        atoms: of unit norm, at least one.
        sparsity: steps, that is the most atoms of a signal.
        orthogonal: project on all atoms found, in each step.

    Raises:
        UsageError: a sparsity under 1.
    """
    check_count("the sparsity", sparsity)
    block = max(CORRELATIONS_AT_ONCE // len(atoms), 1)
    parts = [_pursued(part, atoms, sparsity, orthogonal) for part in signals.split(block)]
    return torch.cat(parts) if parts else signals.clone()


def _pursued(signals: Signals, atoms: Atoms, sparsity: int, orthogonal: bool) -> Signals:
    residual = signals
    directions: list[Signals] = []
    for _ in range(sparsity):
        found = (residual @ atoms.T).abs_().argmax(1)
        direction = atoms[found]
        if orthogonal:
            direction = _new_in(direction, directions)
            directions.append(direction)
        residual = residual - (residual * direction).sum(1, keepdim=True) * direction
    return signals - residual


def _new_in(atoms: Signals, directions: list[Signals]) -> Signals:
    """The unit vector of each atom's part outside its row's directions; zero where there is none."""
    new = atoms
    for _ in range(2):  # Gram-Schmidt twice is orthogonal to rounding
        for direction in directions:
            new = new - (new * direction).sum(1, keepdim=True) * direction
    norms = torch.linalg.vector_norm(new, dim=1, keepdim=True)
    return torch.where(norms > _DEPENDENT, new / norms.clamp_min(_DEPENDENT), 0)
