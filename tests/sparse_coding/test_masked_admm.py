"""Masks: optimality by dense matrices, SPORCO's mask decoupling, and what a weight of zero must not matter for."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quasinat.errors import InputError
from quasinat.sparse_coding import ADMM, Result, SparseCodingProblem, convolve, solve
from quasinat.sparse_coding.boundary import Boundary
from quasinat.sparse_coding.masked_admm import MaskedADMM

from .conftest import as_matrix, problem_of

TIGHT = ADMM(tolerance=1e-6, max_steps=20000)


def masked(problem: SparseCodingProblem, mask: Tensor, **fields: object) -> SparseCodingProblem:
    return replace(problem, mask=mask, **fields)


def holes(problem: SparseCodingProblem, share: float = 0.7) -> Tensor:
    shape = (len(problem.images), 1, *problem.images.shape[-2:])
    return (torch.rand(shape, generator=torch.Generator().manual_seed(9)) < share).to(problem.images)


@pytest.mark.parametrize("kind", ["holes", "weights"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_solutions_meet_the_optimality_conditions(kind: str, adaptive: bool, generator: torch.Generator) -> None:
    """With A = W D and b = W x, dense: |A^T r| <= lambda, and lambda sign(z) on the support."""
    drawn = problem_of(channels=2, filters=4, size=3, shape=(8, 9))
    weights = 2 * torch.rand(1, 2, 8, 9, generator=generator, dtype=torch.float64)
    problem = masked(drawn, holes(drawn) if kind == "holes" else weights)
    solution = solve(problem, replace(TIGHT, adaptive=adaptive))
    assert solution.result.tolist() == [Result.converged]
    assert solution.solver == "masked-admm"
    weights = problem.weights().flatten()
    matrix = as_matrix(problem.filters, 8, 9)
    codes = solution.codes.flatten()
    residual = weights * (problem.images.flatten() - matrix @ codes)
    gradient = matrix.T @ (weights * residual) / problem.sparsity
    assert gradient.abs().max() <= 1 + 1e-4
    support = codes != 0
    assert support.any()
    torch.testing.assert_close(gradient[support], codes[support].sign(), rtol=0, atol=1e-4)
    violation = torch.where(support, (gradient - codes.sign()).abs(), (gradient.abs() - 1).clamp_min(0)).max()
    torch.testing.assert_close(solution.kkt_residual[0], violation, rtol=1e-6, atol=1e-9)
    objective = residual.square().sum() / 2 + problem.sparsity * codes.abs().sum()
    torch.testing.assert_close(solution.objective[0], objective)
    torch.testing.assert_close(problem.objective(solution.codes), solution.objective)
    torch.testing.assert_close(solution.reconstruction.flatten(), matrix @ codes, rtol=0, atol=1e-11)
    largest = float(problem.largest_sparsity())
    assert (solve(replace(problem, sparsity=1.001 * largest)).codes == 0).all()
    assert (solve(replace(problem, sparsity=0.99 * largest), TIGHT).codes != 0).any()


def test_a_step_is_that_of_the_two_splits(generator: torch.Generator) -> None:
    """x by a dense solve, y_0 and y by their proximal maps, the duals by their updates."""
    drawn = problem_of(channels=2, filters=3, size=3, shape=(5, 6))
    weights = 2 * torch.rand(1, 2, 5, 6, generator=generator, dtype=torch.float64)
    problem = masked(drawn, weights)
    solver = MaskedADMM(penalty=0.7, fit_penalty=0.4, relaxation=1.6)
    prepared = solver.prepare(problem)
    state = torch.randn(1, 5, 5, 6, generator=generator, dtype=torch.float64)
    after = solver.step(prepared, state)
    matrix, w, s = as_matrix(problem.filters, 5, 6), weights.flatten(), problem.images.flatten()
    p, q = state[0, :3].flatten(), state[0, 3:].flatten()

    def fit(q: Tensor) -> Tensor:
        return torch.linalg.solve(torch.diag(w**2 + 0.4), w**2 * s + 0.4 * q)

    def soft(p: Tensor) -> Tensor:
        return p.sign() * (p.abs() - problem.sparsity / 0.7).clamp_min(0)

    y, y0 = soft(p), fit(q)
    u, u0 = p - y, q - y0
    system = 0.4 * matrix.T @ matrix + 0.7 * torch.eye(len(p), dtype=torch.float64)
    x = torch.linalg.solve(system, 0.4 * matrix.T @ (y0 - u0) + 0.7 * (y - u))
    torch.testing.assert_close(after[0, :3].flatten(), 1.6 * x - 0.6 * y + u, rtol=0, atol=1e-10)
    torch.testing.assert_close(after[0, 3:].flatten(), 1.6 * matrix @ x - 0.6 * y0 + u0, rtol=0, atol=1e-10)


def test_the_optimum_is_that_of_sporcos_mask_decoupling() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cbpdn = pytest.importorskip("sporco.admm.cbpdn")
        drawn = problem_of(filters=5, size=4, shape=(16, 17))
        problem = masked(drawn, holes(drawn))
        options = {"Verbose": False, "MaxMainIter": 4000, "RelStopTol": 1e-6, "rho": 1.0, "AutoRho": {"Enabled": False}}
        solver = cbpdn.ConvBPDNMaskDcpl(
            problem.filters[:, 0].permute(1, 2, 0).numpy(),
            problem.images[0, 0].numpy(),
            problem.sparsity,
            problem.mask[0, 0].numpy(),
            cbpdn.ConvBPDNMaskDcpl.Options(options),
        )
        solver.solve()
    sparse = torch.from_numpy(solver.block_sep1(solver.Y).squeeze((2, 3)).copy()).permute(2, 0, 1)[None]
    ours = solve(problem, TIGHT)
    torch.testing.assert_close(ours.objective, problem.objective(sparse), rtol=1e-4, atol=0)
    torch.testing.assert_close(ours.reconstruction, convolve(problem.filters, sparse), rtol=0, atol=2e-3)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
@pytest.mark.parametrize("ones", [torch.ones(1, 1, 1, 1).double(), torch.ones(16, 16), torch.ones(2, 1, 16, 16).bool()])
def test_a_mask_of_ones_changes_nothing(boundary: Boundary, ones: Tensor) -> None:
    problem = replace(problem_of(images=2, channels=3), boundary=boundary)
    expected, found = solve(problem, TIGHT), solve(masked(problem, ones), TIGHT)
    torch.testing.assert_close(found.reconstruction, expected.reconstruction, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-6, atol=0)
    alike = masked(problem, ones)
    for name in ("objective", "kkt_residual", "fidelity"):
        values = getattr(alike, name)(expected.codes), getattr(problem, name)(expected.codes)
        torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
@pytest.mark.parametrize("value", [0.0, 7.0, float("nan"), float("inf")])
def test_what_lies_under_a_weight_of_zero_does_not_matter(boundary: Boundary, value: float) -> None:
    drawn = replace(problem_of(images=2, channels=3), boundary=boundary)
    mask = holes(drawn)
    images = torch.where(mask == 0, value, drawn.images)
    expected = solve(masked(drawn, mask))
    found = solve(masked(replace(drawn, images=drawn.images), mask, images=images))
    assert found.codes.equal(expected.codes)
    assert found.objective.equal(expected.objective)
    assert found.reconstruction.isfinite().all()


def test_a_missing_patch_is_filled_in() -> None:
    """The truth is made of few atoms; under a hole the size of a pixel or two, the others tell what is missing."""
    drawn = problem_of(channels=3, filters=5, size=6, shape=(24, 24), sparsity=1e-3)
    codes = torch.zeros(1, 5, 24, 24, dtype=torch.float64)
    codes[0, [0, 1, 2], [3, 10, 15], [4, 12, 7]] = 2.0
    clean = convolve(drawn.filters, codes)
    mask = torch.ones(24, 24)
    mask[5:7, 6:8] = 0
    problem = SparseCodingProblem(torch.where(mask == 0, 9.0, clean), drawn.filters, 1e-3, mask=mask)
    found = solve(problem, ADMM(tolerance=1e-5, max_steps=20000)).reconstruction
    assert clean[..., 5:7, 6:8].abs().max() > 0.1
    torch.testing.assert_close(found, clean, rtol=0, atol=0.01)


@pytest.mark.parametrize("adaptive", [False, True])
def test_an_image_gets_what_it_gets_alone_and_a_warm_start_is_quicker(adaptive: bool) -> None:
    drawn = problem_of(images=4, channels=3, shape=(12, 15))
    scaled = drawn.images * torch.tensor([1.0, 0.2, 3.0, 0.6], dtype=torch.float64).view(4, 1, 1, 1)
    problem = SparseCodingProblem(scaled, drawn.filters, 0.05, mask=holes(drawn))
    solver = ADMM(adaptive=adaptive)
    together = solve(problem, solver)
    assert together.state.shape == (4, 6 + 3, 12, 15)
    for image in range(4):
        alone = solve(problem.select(slice(image, image + 1)), solver)
        assert int(alone.steps) == int(together.steps[image])
        torch.testing.assert_close(together.codes[image], alone.codes[0], rtol=0, atol=1e-10)
    warm = solve(problem, start=together.state)
    assert (warm.steps <= together.steps / 2).all()
    with pytest.raises(InputError, match=r"the start has shape \(4, 6, 12, 15\), the state of this problem \(4, 9"):
        solve(problem, start=together.codes)


def test_masks_that_make_no_sense_are_refused() -> None:
    problem = problem_of(images=2, channels=3)
    with pytest.raises(InputError, match=r"mask of shape \(15, 16\) does not fit .* give one weight per pixel"):
        masked(problem, torch.ones(15, 16))
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="mask has weights that are negative"):
            masked(problem, torch.full((16, 16), value))
    broken = problem.images.clone()
    broken[1, 0, 2, 3] = torch.nan
    with pytest.raises(InputError, match="image 1 holds NaN or infinity"):
        masked(problem, torch.ones(16, 16), images=broken)
    with pytest.raises(InputError, match="image 1 holds NaN or infinity"):
        masked(problem, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), images=broken)
    assert masked(problem, torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), images=broken).readable().all()
