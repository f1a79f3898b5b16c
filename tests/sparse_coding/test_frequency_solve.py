"""The Woodbury solve against the normal equations, in the Fourier domain and as one dense system."""

import pytest
import torch

from quasinat.sparse_coding import ADMM
from quasinat.sparse_coding.convolution import analyse, filter_spectra, from_spectra, synthesise, to_spectra
from quasinat.sparse_coding.frequency_solve import apply_kernel, gram, relative_residual, woodbury_kernel

from .conftest import as_matrix, problem_of

CASES = [(1, 4, 3, (6, 6), 1.0), (3, 5, 4, (7, 6), 0.3), (2, 1, 5, (5, 9), 1e-3), (3, 8, 8, (32, 32), 5.0)]


@pytest.mark.parametrize(("channels", "filters", "size", "shape", "penalty"), CASES)
def test_solves_the_normal_equations(
    channels: int, filters: int, size: int, shape: tuple[int, int], penalty: float
) -> None:
    problem = problem_of(images=2, channels=channels, filters=filters, size=size, shape=shape)
    v = torch.randn(2, filters, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    v_hat, images_hat = to_spectra(v), to_spectra(problem.images)
    filters_hat = filter_spectra(problem.filters, *shape)
    kernel = woodbury_kernel(gram(filters_hat), penalty)
    d_hat = analyse(apply_kernel(kernel, images_hat - synthesise(v_hat, filters_hat)), filters_hat)
    x_hat = v_hat + d_hat
    assert relative_residual(x_hat, v_hat, images_hat, filters_hat, penalty) < 1e-12
    assert relative_residual(x_hat * 1.001, v_hat, images_hat, filters_hat, penalty) > 1e-4  # it does measure
    if shape[0] * shape[1] * filters <= 400:
        matrix = as_matrix(problem.filters, *shape)
        system = matrix.T @ matrix + penalty * torch.eye(matrix.shape[1], dtype=torch.float64)
        right = problem.images.flatten(1) @ matrix + penalty * v.flatten(1)
        dense = torch.linalg.solve(system, right.T).T
        torch.testing.assert_close(from_spectra(x_hat, *shape).flatten(1), dense, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("channels", "filters", "size", "shape", "penalty"), CASES[:3])
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_is_the_three_lines_of_the_admm(
    channels: int, filters: int, size: int, shape: tuple[int, int], penalty: float, adaptive: bool
) -> None:
    """x by a dense solve, y by soft thresholding, u by its update; each image with its own rho where that adapts."""
    problem = problem_of(images=2, channels=channels, filters=filters, size=size, shape=shape, sparsity=0.2)
    solver = ADMM(penalty=penalty, relaxation=1.7, adaptive=adaptive)
    prepared = solver.prepare(problem)
    penalties = torch.full((2, 1), penalty, dtype=torch.float64)
    if adaptive:
        growth = torch.tensor([0.5, 3.0], dtype=torch.float64)
        prepared = prepared._replace(growth=growth, kernel=woodbury_kernel(prepared.gram, growth * penalty))
        penalties = penalties * growth[:, None]
    generator = torch.Generator().manual_seed(5)
    state = 0.5 * torch.randn(2, filters, *shape, generator=generator, dtype=torch.float64) / penalty
    after = solver.step(prepared, state)

    def parts(state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = solver.sparse(prepared, state).flatten(1)
        return y, (state.flatten(1) - y) * penalty / penalties

    matrix = as_matrix(problem.filters, *shape)
    y, u = parts(state)
    x = torch.empty_like(y)
    for image, rho in enumerate(penalties.flatten().tolist()):
        system = matrix.T @ matrix + rho * torch.eye(matrix.shape[1], dtype=torch.float64)
        right = problem.images[image].flatten() @ matrix + rho * (y[image] - u[image])
        x[image] = torch.linalg.solve(system, right)
    mixed = 1.7 * x + (1 - 1.7) * y + u
    expected = mixed.sign() * (mixed.abs() - 0.2 / penalties).clamp_min(0)
    new_y, new_u = parts(after)
    torch.testing.assert_close(new_y, expected, rtol=1e-8, atol=1e-8 / penalty)
    torch.testing.assert_close(new_u, mixed - expected, rtol=1e-8, atol=1e-8 / penalty)
    primal = (x - expected).norm(dim=1) / torch.maximum(x.norm(dim=1), expected.norm(dim=1))
    dual = (expected - y).norm(dim=1) / new_u.norm(dim=1)
    torch.testing.assert_close(solver.residual(prepared, state, after), torch.maximum(primal, dual))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_the_elimination_inverts(channels: int, dtype: torch.dtype) -> None:
    problem = problem_of(channels=channels, filters=9, dtype=dtype)
    matrices = gram(filter_spectra(problem.filters, 16, 16))
    penalties = torch.tensor([0.01, 1.0, 30.0], dtype=dtype)
    inverse = woodbury_kernel(matrices, penalties)
    identity = torch.eye(channels).view(1, channels, channels, 1, 1)
    system = matrices + penalties.view(-1, 1, 1, 1, 1) * identity
    product = torch.einsum("bcdhw,bdehw->bcehw", system, inverse)
    tolerance = {torch.float32: 1e-3, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(product, identity.expand_as(product).to(product), rtol=0, atol=tolerance)
    for row, penalty in enumerate(penalties.tolist()):
        torch.testing.assert_close(woodbury_kernel(matrices, penalty)[0], inverse[row])
