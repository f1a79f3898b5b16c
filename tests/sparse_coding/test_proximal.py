"""The proximal maps against what defines them: nothing nearer, nothing lower."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quasinat.errors import UsageError
from quasinat.sparse_coding import Constraint, project_filters, soft_threshold

from .unchecked import unchecked

CONSTRAINTS: list[Constraint] = ["per-channel", "joint"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(-3, 3), st.floats(0, 2))
def test_soft_threshold_is_the_argmin_on_a_grid(value: float, threshold: float) -> None:
    grid = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    best = grid[((grid - value).square() / 2 + threshold * grid.abs()).argmin()]
    found = soft_threshold(torch.tensor([value], dtype=torch.float64), threshold)
    torch.testing.assert_close(found[0], best, rtol=0, atol=6e-5)


def test_soft_threshold_is_exactly_zero_inside() -> None:
    values = torch.linspace(-0.2, 0.2, 101)
    assert (soft_threshold(values, 0.2) == 0).all()
    assert soft_threshold(values, 0.0).equal(values)


def norms_of(filters: torch.Tensor, constraint: Constraint) -> torch.Tensor:
    return filters.square().sum((2, 3) if constraint == "per-channel" else (1, 2, 3)).sqrt()


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_projected_filters_have_unit_norm_and_stay(constraint: Constraint, generator: torch.Generator) -> None:
    filters = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64) * 7
    filters[2] = 0
    projected = project_filters(filters, constraint)
    norms = norms_of(projected, constraint)
    assert (projected[2] == 0).all()
    kept = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(norms[kept], torch.ones_like(norms[kept]), rtol=1e-12, atol=0)
    torch.testing.assert_close(project_filters(projected, constraint), projected, rtol=1e-12, atol=0)
    assert not projected.isnan().any()


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_no_other_unit_norm_filters_are_nearer(constraint: Constraint, generator: torch.Generator) -> None:
    filters = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    projected = project_filters(filters, constraint)
    distance = (projected - filters).square().sum()
    for scale in (0.01, 0.1, 1.0, 10.0):
        for _ in range(50):
            noise = scale * torch.randn(filters.shape, generator=generator, dtype=torch.float64)
            moved = projected + noise
            axes = (2, 3) if constraint == "per-channel" else (1, 2, 3)
            candidate = moved / moved.square().sum(axes, keepdim=True).sqrt()
            assert (candidate - filters).square().sum() >= distance


def test_a_misspelt_constraint_names_the_close_match() -> None:
    with unchecked(), pytest.raises(UsageError, match="did you mean 'per-channel'"):
        project_filters(torch.ones(1, 1, 2, 2), "per-chanel")
