"""Boundaries other than circular: against dense matrices of linear convolutions, and what they are good for."""

import pytest
import torch
from torch import Tensor

from quasinat.errors import UsageError
from quasinat.sparse_coding import ADMM, Result, SparseCodingProblem, convolve, project_filters, solve
from quasinat.sparse_coding.boundary import Boundary, crop, extend, margins

from .conftest import as_matrix, problem_of
from .unchecked import unchecked

TIGHT = ADMM(tolerance=1e-6, max_steps=20000)


def linear_matrix(filters: Tensor, height: int, width: int) -> Tensor:
    """Atoms at every position where they touch a frame of `height` x `width`, cut off at its border; rows `C H W`.

    Positions are ordered as on the zero-extended domain: 0 .. H - 1, then -(S - 1) .. -1.
    """
    size = filters.shape[-1]
    rows, columns = ([*range(length), *range(1 - size, 0)] for length in (height, width))
    atoms = []
    for atom in filters:
        for top in rows:
            for left in columns:
                page = filters.new_zeros(filters.shape[1], height + 2 * size, width + 2 * size)
                page[:, top + size : top + 2 * size, left + size : left + 2 * size] = atom
                atoms.append(page[:, size:-size, size:-size].flatten())
    return torch.stack(atoms, 1)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "zero"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_frame_of_what_is_extended_is_the_image(boundary: Boundary, size: int, generator: torch.Generator) -> None:
    images = torch.randn(2, 3, 5, 7, generator=generator)
    extended = extend(images, boundary, size)
    added = {"circular": 0, "reflect": 2 * (size - 1), "zero": size - 1}[boundary]
    assert extended.shape == (2, 3, 5 + added, 7 + added)
    assert crop(extended, boundary, size).equal(images)
    assert margins(boundary, size)[0] + margins(boundary, size)[1] == added
    if boundary == "reflect":
        wide = extend(images, boundary, size)[0, 0, size - 1, :]
        assert wide[: size - 1].equal(images[0, 0, 0, 1:size].flip(0))
        assert wide[7 + size - 1 :].equal(images[0, 0, 0, 7 - size : 6].flip(0))
    if boundary == "zero" and size > 1:
        assert (extended[..., 5:, :] == 0).all()
        assert (extend(images, boundary, size, outside=1.0)[..., 7:] == 1).all()


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), [(1, 3, 3, (5, 6)), (2, 2, 4, (4, 7))])
def test_within_the_frame_a_zero_boundary_is_a_linear_convolution(
    channels: int, filters: int, size: int, shape: tuple[int, int], generator: torch.Generator
) -> None:
    drawn = problem_of(channels=channels, filters=filters, size=size, shape=shape)
    problem = SparseCodingProblem(drawn.images, drawn.filters, 0.05, boundary="zero")
    assert problem.codes_shape() == (1, filters, shape[0] + size - 1, shape[1] + size - 1)
    codes = torch.randn(problem.codes_shape(), generator=generator, dtype=torch.float64)
    within = crop(convolve(problem.filters, codes), "zero", size).flatten()
    torch.testing.assert_close(within, linear_matrix(problem.filters, *shape) @ codes.flatten(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", ["reflect", "zero"])
def test_the_solution_is_optimal_for_the_dense_matrix_of_the_extended_problem(boundary: Boundary) -> None:
    drawn = problem_of(channels=2, filters=3, size=4, shape=(6, 7))
    problem = SparseCodingProblem(drawn.images, drawn.filters, 0.03, boundary=boundary)
    solution = solve(problem, TIGHT)
    assert solution.result.tolist() == [Result.converged]
    extended = extend(problem.images, boundary, 4)
    matrix = as_matrix(problem.filters, *extended.shape[-2:])
    codes = solution.codes.flatten()
    residual = extended.flatten() - matrix @ codes
    gradient = matrix.T @ residual / 0.03
    assert gradient.abs().max() <= 1 + 1e-4
    torch.testing.assert_close(gradient[codes != 0], codes[codes != 0].sign(), rtol=0, atol=1e-4)
    torch.testing.assert_close(solution.objective[0], residual.square().sum() / 2 + 0.03 * codes.abs().sum())
    torch.testing.assert_close(solution.objective, problem.objective(solution.codes))
    torch.testing.assert_close(solution.kkt_residual, problem.kkt_residual(solution.codes))
    within = crop((matrix @ codes).view(extended.shape), boundary, 4)
    torch.testing.assert_close(solution.reconstruction, within, rtol=0, atol=1e-12)
    if boundary == "zero":
        linear = linear_matrix(problem.filters, 6, 7) @ codes
        torch.testing.assert_close(solution.reconstruction.flatten(), linear, rtol=0, atol=1e-12)
    circular = solve(problem.circular(), TIGHT)
    torch.testing.assert_close(circular.codes, solution.codes, rtol=0, atol=1e-12)


def test_a_ramp_has_no_seam_where_it_is_reflected() -> None:
    """Wrapped around, a ramp jumps at its border, which smooth atoms blur; mirrored, it does not."""
    bump = torch.hann_window(8, periodic=False, dtype=torch.float64)[1:-1]
    atoms = project_filters((bump[:, None] * bump).view(1, 1, 6, 6), "joint")
    ramp = torch.linspace(0, 1, 24, dtype=torch.float64).expand(1, 1, 24, 24).contiguous()
    border = torch.zeros(24, dtype=torch.bool)
    border[:3] = border[-3:] = True
    errors = {}
    for boundary in ("circular", "reflect"):
        solution = solve(SparseCodingProblem(ramp, atoms, 0.02, boundary=boundary), ADMM(1e-5, 5000))
        difference = (solution.reconstruction - ramp)[0, 0].abs().amax(0)
        errors[boundary] = float(difference[border].max())
        assert difference[6:-6].max() < 0.02
    assert errors["circular"] > 0.2
    assert errors["reflect"] < 0.02


def test_a_mirrored_problem_has_a_mirrored_reconstruction() -> None:
    drawn = problem_of(channels=2, filters=4, size=3, shape=(8, 9))
    problem = SparseCodingProblem(drawn.images, drawn.filters, 0.05, boundary="reflect")
    mirrored = SparseCodingProblem(drawn.images.flip(3), drawn.filters.flip(3), 0.05, boundary="reflect")
    expected = solve(problem, TIGHT).reconstruction.flip(3)
    torch.testing.assert_close(solve(mirrored, TIGHT).reconstruction, expected, rtol=0, atol=1e-5)


def test_constant_images_stay_constant_where_reflected() -> None:
    """A translation-invariant problem: every interior of a constant image is coded alike, border included."""
    images = torch.full((1, 1, 9, 9), 0.7, dtype=torch.float64)
    filters = torch.full((1, 1, 3, 3), 1 / 3, dtype=torch.float64)
    solution = solve(SparseCodingProblem(images, filters, 0.01, boundary="reflect"), TIGHT)
    torch.testing.assert_close(solution.reconstruction, solution.reconstruction[..., :1, :1].expand_as(images))


@pytest.mark.parametrize("boundary", ["reflect", "zero"])
def test_an_image_gets_what_it_gets_alone_and_a_warm_start_is_quicker(boundary: Boundary) -> None:
    drawn = problem_of(images=4, channels=3, shape=(12, 15))
    scaled = drawn.images * torch.tensor([1.0, 0.2, 3.0, 0.6], dtype=torch.float64).view(4, 1, 1, 1)
    problem = SparseCodingProblem(scaled, drawn.filters, 0.05, boundary=boundary)
    together = solve(problem)
    for image in range(4):
        alone = solve(problem.select(slice(image, image + 1)))
        torch.testing.assert_close(together.reconstruction[image], alone.reconstruction[0], rtol=0, atol=1e-11)
    warm = solve(problem, start=together.state)
    assert (warm.steps <= together.steps / 4).all()


def test_a_boundary_that_is_unknown_is_refused() -> None:
    drawn = problem_of()
    with unchecked(), pytest.raises(UsageError, match=r"unknown boundary 'zeros'; did you mean 'zero'\?"):
        SparseCodingProblem(drawn.images, drawn.filters, 0.05, boundary="zeros")  # type: ignore[arg-type]
