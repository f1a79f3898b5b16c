"""The named gradients against numerical differentiation, each other, and dense linear algebra."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quasinat.errors import UsageError
from quasinat.sparse_coding import (
    ADMM,
    Adjoint,
    CoordinateDescent,
    Identity,
    Implicit,
    Solver,
    SparseCodingProblem,
    Unrolled,
    reconstruct,
    solve,
)
from quasinat.sparse_coding.coordinate_descent import available
from quasinat.sparse_coding.implicit import filter_gradient
from quasinat.sparse_coding.span import solve_on_support

from .conftest import as_matrix, problem_of, synthesis

EXACT = Implicit(forward_tolerance=1e-13, tolerance=1e-13)
TIGHT = ADMM(max_steps=100000)


def inputs(problem: SparseCodingProblem) -> tuple[Tensor, Tensor, Tensor]:
    sparsity = torch.tensor(problem.sparsity, dtype=problem.images.dtype)
    return tuple(tensor.clone().requires_grad_() for tensor in (problem.images, problem.filters, sparsity))


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
@pytest.mark.parametrize("adjoint", [Unrolled(3), Unrolled(4, penalty=0.7, relaxation=1.0), EXACT])
def test_gradcheck_in_images_filters_and_lambda(adjoint: Adjoint, boundary: str) -> None:
    problem = problem_of(images=2, channels=2, filters=4, size=3, shape=(6, 7), sparsity=0.1)

    def function(images: Tensor, filters: Tensor, sparsity: Tensor) -> Tensor:
        return reconstruct(images, filters, sparsity, adjoint, boundary=boundary, solver=tight())

    # Every entry of the Jacobian once; along random directions where only the boundary differs.
    fast = boundary != "circular"
    assert torch.autograd.gradcheck(function, inputs(problem), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=fast)


def test_gradcheck_of_the_implicit_derivative_under_a_mask(generator: torch.Generator) -> None:
    problem = problem_of(images=1, channels=2, filters=3, size=3, shape=(6, 5), sparsity=0.1)
    mask = torch.rand(1, 2, 6, 5, generator=generator, dtype=torch.float64) * (
        torch.rand(1, 2, 6, 5, generator=generator) > 0.3
    )
    adjoint = replace(EXACT, forward_tolerance=1e-10)

    def function(images: Tensor, filters: Tensor, sparsity: Tensor) -> Tensor:
        return reconstruct(images, filters, sparsity, adjoint, solver=TIGHT, mask=mask)

    assert torch.autograd.gradcheck(function, inputs(problem), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_the_implicit_gradient_is_that_of_finite_differences_at_32_pixels(generator: torch.Generator) -> None:
    problem = problem_of(channels=3, filters=16, size=8, shape=(32, 32), sparsity=0.05)
    images, filters, sparsity = inputs(problem)
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)

    def value(x: Tensor, f: Tensor, weight: float) -> float:
        return float((solve(SparseCodingProblem(x, f, weight), tight()).reconstruction * weights).sum())

    output = reconstruct(images, filters, sparsity, EXACT, solver=tight())
    gradients = torch.autograd.grad((output * weights).sum(), (images, filters, sparsity))
    step = 1e-6
    for index, (start, gradient) in enumerate(zip((problem.images, problem.filters), gradients[:2], strict=True)):
        for _ in range(4):
            direction = torch.randn(start.shape, generator=generator, dtype=torch.float64)
            direction /= direction.norm()
            ends = []
            for sign in (1, -1):
                moved = [problem.images, problem.filters]
                moved[index] = start + sign * step * direction
                ends.append(value(moved[0], moved[1], problem.sparsity))
            expected = (ends[0] - ends[1]) / (2 * step)
            assert float((gradient * direction).sum()) == pytest.approx(
                expected, rel=1e-5, abs=1e-5 * float(gradient.norm())
            )
    ends = [value(problem.images, problem.filters, problem.sparsity + sign * step) for sign in (1, -1)]
    assert float(gradients[2]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def tight() -> Solver:
    """The solver at hand, run until finite differences cannot see what is left."""
    if available():
        return ADMM(tolerance=1e-11, max_steps=100000)
    return CoordinateDescent(tolerance=1e-13, max_steps=20000)


def test_unrolling_approaches_the_implicit_gradient() -> None:
    problem = problem_of(images=3, channels=3)
    weights = torch.randn(problem.images.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def gradient(adjoint: Adjoint) -> Tensor:
        images = problem.images.clone().requires_grad_()
        output = reconstruct(images, problem.filters, problem.sparsity, adjoint)
        return torch.autograd.grad((output * weights).sum(), images)[0].flatten(1)

    truth = gradient(EXACT)
    distances = [float((gradient(Unrolled(steps)) - truth).norm() / truth.norm()) for steps in (10, 50, 400)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.02
    assert gradient(Identity()).equal(weights.flatten(1))
    assert float((weights.flatten(1) - truth).norm() / truth.norm()) > 0.5


def test_the_forward_values_are_the_solvers() -> None:
    problem = problem_of(images=2, channels=2)
    images, filters, sparsity = inputs(problem)
    expected = solve(problem, ADMM(tolerance=1e-9, max_steps=20000)).reconstruction
    found = reconstruct(images, filters, sparsity, EXACT)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    steps = solve(problem, ADMM(tolerance=0.0, max_steps=13)).reconstruction
    torch.testing.assert_close(reconstruct(images, filters, sparsity, Unrolled(13)), steps, rtol=0, atol=1e-12)
    auto = solve(problem).reconstruction
    assert reconstruct(images, filters, problem.sparsity, Identity()).equal(auto)


def test_an_image_gets_the_gradient_it_gets_alone() -> None:
    problem = problem_of(images=4, channels=3, dtype=torch.float32)
    weights = torch.randn(problem.images.shape, generator=torch.Generator().manual_seed(5))

    def gradient(rows: slice) -> Tensor:
        images = problem.images[rows].clone().requires_grad_()
        output = reconstruct(images, problem.filters, problem.sparsity, Implicit())
        return torch.autograd.grad((output * weights[rows]).sum(), images)[0]

    together = gradient(slice(None))
    for image in range(4):
        torch.testing.assert_close(gradient(slice(image, image + 1))[0], together[image], rtol=0, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_least_squares_on_the_support_against_a_dense_solve(weighted: bool, generator: torch.Generator) -> None:
    problem = problem_of(images=2, channels=2, filters=4, size=3, shape=(7, 6))
    codes = solve(problem, codes="sparse").codes
    images = torch.randn(2, 2, 7, 6, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 2, 7, 6, generator=generator, dtype=torch.float64) + 0.2 if weighted else None
    found = solve_on_support(images, problem.filters, codes, weights=weights, tolerance=1e-12)
    matrix = as_matrix(problem.filters, 7, 6)
    for image in range(2):
        on = codes.to_dense()[image].flatten() != 0
        active = matrix[:, on]
        scaled = active if weights is None else weights[image].flatten()[:, None] ** 2 * active
        expected = active @ torch.linalg.lstsq(active.T @ scaled, active.T @ images[image].flatten()[:, None]).solution
        torch.testing.assert_close(found.synthesis[image].flatten(), expected.flatten(), rtol=0, atol=1e-8)
    dense = found.coefficients.to_dense()
    torch.testing.assert_close(found.synthesis, synthesis(problem.filters, dense), rtol=0, atol=1e-9)


def test_the_plain_torch_solve_is_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(images=3, channels=3)
    codes = solve(problem, codes="sparse").codes
    images = problem.images.flip(0)
    compiled = solve_on_support(images, problem.filters, codes, tolerance=1e-12)
    monkeypatch.setenv("QUASINAT_NO_KERNEL", "1")
    plain = solve_on_support(images, problem.filters, codes, tolerance=1e-12)
    torch.testing.assert_close(plain.synthesis, compiled.synthesis, rtol=0, atol=1e-9)
    assert (plain.steps > 0).all()


def test_the_filter_gradient_against_autograd(generator: torch.Generator) -> None:
    codes = torch.randn(2, 3, 6, 7, generator=generator, dtype=torch.float64)
    codes *= torch.rand(codes.shape, generator=generator) < 0.2
    images = torch.randn(2, 2, 6, 7, generator=generator, dtype=torch.float64)
    filters = torch.zeros(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad((synthesis(filters, codes) * images).sum(), filters)
    torch.testing.assert_close(filter_gradient(images, codes.to_sparse().coalesce(), 4), expected)


def test_images_that_are_not_optimal_fall_back_and_are_counted() -> None:
    problem = problem_of(images=3, channels=2)
    images = problem.images.clone()
    images[1] *= 3000  # a lambda far too small for it: its codes are dense, and not done after all the steps
    counted: list[tuple[int, int]] = []
    adjoint = Implicit(kkt=0.3, fallback=Unrolled(9), on_fallback=lambda count, total: counted.append((count, total)))
    solver = CoordinateDescent()
    leaf = images.clone().requires_grad_()
    output = reconstruct(leaf, problem.filters, problem.sparsity, adjoint, solver=solver)
    residual = solve(SparseCodingProblem(images, problem.filters, problem.sparsity), CoordinateDescent(tolerance=1e-4))
    untrusted = residual.kkt_residual > 0.3
    assert untrusted.any()
    assert not untrusted.all()
    assert counted == [(int(untrusted.sum()), 3)]
    unrolled = reconstruct(leaf, problem.filters, problem.sparsity, Unrolled(9))
    assert output[untrusted].equal(unrolled[untrusted])
    (gradient,) = torch.autograd.grad(output.sum(), leaf)
    (expected,) = torch.autograd.grad(unrolled.sum(), leaf)
    torch.testing.assert_close(gradient[untrusted], expected[untrusted])
    assert gradient[~untrusted].abs().max() > 0
    with pytest.warns(UserWarning, match="not solved well enough for the implicit gradient"):
        reconstruct(leaf, problem.filters, problem.sparsity, replace(adjoint, on_fallback=None), solver=solver)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = problem.images.clone().requires_grad_()
        reconstruct(good, problem.filters, problem.sparsity, Implicit())


def test_what_makes_no_sense_is_refused() -> None:
    problem = problem_of()
    with pytest.raises(UsageError, match="Unrolled knows no masks; use Implicit"):
        reconstruct(problem.images, problem.filters, 0.1, Unrolled(3), mask=torch.ones(16, 16))
    for bad in ({"steps": 0}, {"relaxation": 2.0}, {"penalty": -1.0}):
        with pytest.raises(UsageError, match="out of range"):
            Unrolled(**bad)
