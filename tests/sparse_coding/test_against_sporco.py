"""Another solver's optimum: SPORCO's ADMM, both run until they stand still."""

import warnings

import pytest
import torch

from quasinat.sparse_coding import ADMM, convolve, solve

from .conftest import problem_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    cbpdn = pytest.importorskip("sporco.admm.cbpdn")

pytestmark = pytest.mark.filterwarnings("ignore")

CASES = [
    (1, 4, 3, (16, 16), 0.05),
    (1, 5, 4, (17, 23), 0.1),
    (3, 6, 5, (16, 16), 0.02),
    (3, 4, 8, (32, 20), 0.05),
    (3, 5, 6, (17, 23), 0.2),
    (2, 8, 3, (9, 12), 0.05),
]


@pytest.mark.parametrize(("channels", "filters", "size", "shape", "sparsity"), CASES)
def test_the_optimum_is_sporcos(
    channels: int, filters: int, size: int, shape: tuple[int, int], sparsity: float
) -> None:
    problem = problem_of(channels=channels, filters=filters, size=size, shape=shape, sparsity=sparsity)
    ours = solve(problem, ADMM(tolerance=1e-6, max_steps=20000))

    # SPORCO's axes: image H W C; dictionary S S C K with one code per filter, or S S K for a grey image.
    image = problem.images[0].permute(1, 2, 0).numpy()
    dictionary = problem.filters.permute(2, 3, 1, 0).numpy()
    if channels == 1:
        image, dictionary = image[..., 0], dictionary[:, :, 0]
    options = {
        "Verbose": False,
        "MaxMainIter": 5000,
        "RelStopTol": 1e-6,
        "rho": 25 * sparsity,
        "RelaxParam": 1.8,
        "AutoRho": {"Enabled": False},
    }
    solver = cbpdn.ConvBPDN(dictionary, image, sparsity, cbpdn.ConvBPDN.Options(options))
    solver.solve()
    sparse = torch.from_numpy(solver.var_y().squeeze((2, 3)).copy()).permute(2, 0, 1)[None]
    theirs = problem.objective(sparse)
    torch.testing.assert_close(ours.objective, theirs, rtol=1e-4, atol=0)
    torch.testing.assert_close(ours.reconstruction, convolve(problem.filters, sparse), rtol=0, atol=1e-3)
    assert 0 < ours.density < 0.5
