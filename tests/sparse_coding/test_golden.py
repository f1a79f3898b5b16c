"""Stored images, filters, SPORCO results by the authors' recipe, and converged optima."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from quasinat.sparse_coding import ADMM, CoordinateDescent, Result, SparseCodingProblem, convolve, solve, tikhonov_split
from quasinat.sparse_coding.coordinate_descent import available

NAMES = ["g032_00_clean", "g032_03_adv", "g032_07_clean", "g064_100_clean"]


def stored(path: Path) -> dict[str, Tensor]:
    """Arrays of one file; pictures as `1 C H W`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind in "fi"}
    for name in ("image", "sl", "sh", "reconstruction"):
        arrays[name] = arrays[name].permute(2, 0, 1)[None].contiguous()
    arrays["basis"] = arrays["basis"].permute(3, 2, 0, 1).contiguous()
    return arrays


@pytest.mark.parametrize("name", NAMES)
def test_split_is_the_stored_one(golden: Path, name: str) -> None:
    file = stored(golden / f"{name}.npz")
    low, high = tikhonov_split(file["image"])
    torch.testing.assert_close(low, file["sl"], rtol=0, atol=1e-5)
    torch.testing.assert_close(high, file["sh"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_objective_is_the_converged_optimum(golden: Path, name: str) -> None:
    file = stored(golden / f"{name}.npz")
    with np.load(golden / f"Fstar_{name[1:4]}.npz") as optima:
        optimum = float(optima["Fstar"][list(optima["names"]).index(f"{name}.npz")])
    problem = SparseCodingProblem(file["sh"], file["basis"], float(file["lmbda"]))
    solution = solve(problem, ADMM(tolerance=2e-4, max_steps=1000))
    assert solution.result.tolist() == [Result.converged]
    assert float(solution.objective) == pytest.approx(optimum, rel=1e-4)
    reconstruction = file["sl"] + solution.reconstruction
    torch.testing.assert_close(reconstruction, file["reconstruction"], rtol=0, atol=0.03)


@pytest.mark.skipif(available() is not None, reason=f"coordinate descent: {available()}")
@pytest.mark.parametrize("name", NAMES)
def test_coordinate_descent_is_at_the_converged_optimum(golden: Path, name: str) -> None:
    """Objective within 1e-4, reconstruction within 1e-3 of one made in float64 at a tight tolerance."""
    file = stored(golden / f"{name}.npz")
    with np.load(golden / f"Fstar_{name[1:4]}.npz") as optima:
        optimum = float(optima["Fstar"][list(optima["names"]).index(f"{name}.npz")])
    problem = SparseCodingProblem(file["sh"], file["basis"], float(file["lmbda"]))
    solution = solve(problem, CoordinateDescent(tolerance=1e-3))
    assert float(solution.objective) == pytest.approx(optimum, rel=1e-4)
    exact = SparseCodingProblem(file["sh"].double(), file["basis"].double(), float(file["lmbda"]))
    tight = solve(exact, CoordinateDescent(tolerance=1e-9, max_steps=5000)).reconstruction
    close = solve(problem, CoordinateDescent(tolerance=1e-4)).reconstruction
    torch.testing.assert_close(close.double(), tight, rtol=0, atol=1e-3)
    admm = solve(problem, ADMM(tolerance=5e-5, max_steps=2000)).reconstruction
    torch.testing.assert_close(admm.double(), tight, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", NAMES[:1])
def test_the_default_solver_is_as_good_as_the_stored_run(golden: Path, name: str) -> None:
    file = stored(golden / f"{name}.npz")
    problem = SparseCodingProblem(file["sh"], file["basis"], float(file["lmbda"]))
    assert float(solve(problem, ADMM(tolerance=5e-3, max_steps=200)).objective) <= 1.002 * float(file["objective_Y"])


@pytest.mark.parametrize("name", NAMES)
def test_stored_codes_mean_the_same_to_us(golden: Path, name: str) -> None:
    """The convolution, its origin and the objective agree with those that the file was written with."""
    file = stored(golden / f"{name}.npz")
    height, width, filters = file["Y_shape"].tolist()
    codes = torch.zeros(height * width * filters)
    codes[file["Y_idx"].long()] = file["Y_val"]
    codes = codes.view(1, height, width, filters).permute(0, 3, 1, 2).contiguous()
    problem = SparseCodingProblem(file["sh"], file["basis"], float(file["lmbda"]))
    assert float(problem.objective(codes)) == pytest.approx(float(file["objective_Y"]), rel=1e-5)
    total = file["sl"] + convolve(file["basis"], codes)
    torch.testing.assert_close(total, file["reconstruction"], rtol=0, atol=1e-5)
