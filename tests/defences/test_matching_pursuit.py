"""Matching pursuit against a loop that is written down from its definition, and the orthogonal one against sklearn."""

import pytest
import torch
from torch import Tensor

from quasinat.defences import matching_pursuit as module
from quasinat.defences.matching_pursuit import matching_pursuit
from quasinat.errors import UsageError


def unit(rows: Tensor) -> Tensor:
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)


@pytest.fixture
def atoms(generator: torch.Generator) -> Tensor:
    return unit(torch.randn(60, 20, generator=generator, dtype=torch.float64))


@pytest.fixture
def signals(generator: torch.Generator) -> Tensor:
    return torch.randn(25, 20, generator=generator, dtype=torch.float64)


def by_definition(signal: Tensor, atoms: Tensor, sparsity: int) -> Tensor:
    total = torch.zeros_like(signal)
    for _ in range(sparsity):
        products = [float((signal - total) @ atom) for atom in atoms]
        best = max(range(len(atoms)), key=lambda k: abs(products[k]))
        total = total + products[best] * atoms[best]
    return total


@pytest.mark.parametrize("sparsity", [1, 4, 30])
def test_it_is_the_loop_of_its_definition(signals: Tensor, atoms: Tensor, sparsity: int) -> None:
    truth = torch.stack([by_definition(signal, atoms, sparsity) for signal in signals])
    assert torch.allclose(matching_pursuit(signals, atoms, sparsity), truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sparsity", [1, 4, 12])
def test_the_orthogonal_one_is_sklearns(signals: Tensor, atoms: Tensor, sparsity: int) -> None:
    from sklearn.linear_model import orthogonal_mp

    codes = orthogonal_mp(atoms.T.numpy(), signals.T.numpy(), n_nonzero_coefs=sparsity)
    truth = torch.from_numpy(codes.T) @ atoms
    found = matching_pursuit(signals, atoms, sparsity, orthogonal=True)
    assert torch.allclose(found, truth, rtol=0, atol=1e-10)
    assert not torch.allclose(matching_pursuit(signals, atoms, 4), matching_pursuit(signals, atoms, 4, orthogonal=True))


@pytest.mark.parametrize("orthogonal", [False, True])
def test_the_residual_falls_with_every_atom(signals: Tensor, atoms: Tensor, orthogonal: bool) -> None:
    residuals = [
        torch.linalg.vector_norm(signals - matching_pursuit(signals, atoms, k, orthogonal=orthogonal), dim=1)
        for k in range(1, 9)
    ]
    norms = torch.stack([torch.linalg.vector_norm(signals, dim=1), *residuals])
    assert (norms[1:] < norms[:-1]).all()


def test_as_many_orthogonal_steps_as_dimensions_leave_nothing(signals: Tensor, atoms: Tensor) -> None:
    assert torch.allclose(matching_pursuit(signals, atoms, 20, orthogonal=True), signals, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("sparsity", [1, 5])
def test_a_multiple_of_an_atom_comes_back(atoms: Tensor, dtype: torch.dtype, orthogonal: bool, sparsity: int) -> None:
    atoms = torch.cat([atoms, -atoms[:3], atoms[:3]]).to(dtype)  # the same atom again must not lead anywhere
    signals = torch.cat([atoms * -0.7, torch.zeros_like(atoms[:1])])
    found = matching_pursuit(signals, atoms, sparsity, orthogonal=orthogonal)
    assert torch.allclose(found, signals, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


def test_the_blocks_leave_no_trace(signals: Tensor, atoms: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = matching_pursuit(signals, atoms, 4)
    monkeypatch.setattr(module, "CORRELATIONS_AT_ONCE", 7 * len(atoms))
    assert torch.allclose(matching_pursuit(signals, atoms, 4), whole, rtol=0, atol=1e-12)
    monkeypatch.setattr(module, "CORRELATIONS_AT_ONCE", 1)
    assert torch.allclose(matching_pursuit(signals, atoms, 4), whole, rtol=0, atol=1e-12)


def test_no_signals_and_no_sparsity(signals: Tensor, atoms: Tensor) -> None:
    assert matching_pursuit(signals[:0], atoms, 4).shape == (0, 20)
    with pytest.raises(UsageError, match="the sparsity is 0; give at least 1"):
        matching_pursuit(signals, atoms, 0)
