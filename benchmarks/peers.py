"""Other packages on the same problem: how long each takes, per image, to come within 0.1 % of the optimum of Eq. (2).

    python -m venv peers
    peers/bin/pip install sporco scico celer skglm scikit-learn dicodile mpich
    OMP_NUM_THREADS=1 taskset -c 1 peers/bin/python benchmarks/peers.py --cifar DIR --filters FILE.npz

It needs SPORCO, for the split and the optimum; quasinat is one of the peers (`PYTHONPATH=src`, torch installed). Each
runs alone on every image, from zero, with the least effort (iterations, or a tolerance) that gets its codes below the
gap; that run is then timed. The effort is found by search, which favours the peer: it never pays for a stopping rule.
What depends on the filters alone (an explicit matrix, a Lipschitz constant) and what JAX and Numba compile is made
before the clock starts. One NumPy function evaluates everyone's codes, in float64.

| posed as | the problem |
| --- | --- |
| colour | Eq. (2) as it is: C channels that share the codes, circular |
| grey | the mean of the channels, and of the filters' (to unit norm): for a peer that has one channel only |
| inside | colour, but no atom reaches over the border: for a peer whose convolution is linear |
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache, wraps
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Peer = Callable[[Array, Array, float, int], Array]

GAP = 1e-3
MOST_EFFORT = 80
STRIDE = 8
REPEATS = 3


def objective(image: Array, filters: Array, codes: Array, lmbda: float) -> float:
    """Eq. (2) at `codes` (H, W, K), for an image (H, W, C) and filters (S, S, C, K)."""
    size = image.shape[:2]
    spectra = np.fft.rfft2(filters.astype(np.float64), size, axes=(0, 1))
    synthesis = np.einsum("hwck,hwk->hwc", spectra, np.fft.rfft2(codes.astype(np.float64), axes=(0, 1)))
    residual = np.fft.irfft2(synthesis, size, axes=(0, 1)) - image
    return float(0.5 * np.sum(residual**2) + lmbda * np.sum(np.abs(codes, dtype=np.float64)))


def iterations(effort: int) -> int:
    """1 to 2,000, each a tenth more than the one before."""
    return int(np.ceil(1.1**effort))


def tolerance(effort: int) -> float:
    """1 to 1e-10, eight to a decade."""
    return float(10 ** (-effort / 8))


def kept(build: Callable[..., Any]) -> Callable[..., Any]:
    """`build` of arrays and numbers, remembered by their values."""
    made: dict[Any, Any] = {}

    @wraps(build)
    def get(*inputs: Any) -> Any:
        key = tuple((i.shape, i.dtype.str, i.tobytes()) if isinstance(i, np.ndarray) else i for i in inputs)
        if key not in made:
            made[key] = build(*inputs)
        return made[key]

    return get


@kept
def lipschitz(filters: Array, height: int, width: int) -> float:
    """The largest eigenvalue of D^T D, exactly: that of a C x C matrix at some frequency."""
    spectra = np.fft.fft2(filters, (height, width), axes=(0, 1))
    return float(np.linalg.eigvalsh(np.einsum("hwck,hwdk->hwcd", spectra, spectra.conj())).max())


@kept
def matrix(filters: Array, height: int, width: int) -> Any:
    """D as a sparse matrix (H W C, H W K), circular."""
    from scipy.sparse import csc_array

    tall, wide, channels, count = filters.shape
    row, column, i, j, c, k = np.ogrid[:height, :width, :tall, :wide, :channels, :count]
    pixel = (((row + i) % height) * width + (column + j) % width) * channels + c
    entry = (row * width + column) * count + k
    values, pixel, entry = (a.ravel() for a in np.broadcast_arrays(filters, pixel, entry))
    shape = (height * width * channels, height * width * count)
    return csc_array((values, (pixel.astype(np.int32), entry.astype(np.int32))), shape=shape)


def sporco_admm(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """ADMM with SPORCO's own defaults: rho starts at 50 lambda + 1 and adapts at every iteration."""
    from sporco.admm.cbpdn import ConvBPDN

    options = ConvBPDN.Options({"MaxMainIter": iterations(effort), "RelStopTol": 0.0})
    return ConvBPDN(filters, image, lmbda, options).solve().squeeze()


def sporco_admm_fixed(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """ADMM with rho = 25 lambda throughout."""
    from sporco.admm.cbpdn import ConvBPDN

    options = {"MaxMainIter": iterations(effort), "RelStopTol": 0.0, "rho": 25 * lmbda, "AutoRho": {"Enabled": False}}
    return ConvBPDN(filters, image, lmbda, ConvBPDN.Options(options)).solve().squeeze()


def sporco_pgm(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """FISTA at the exact Lipschitz constant (SPORCO's default of 500 is slower)."""
    from sporco.pgm.cbpdn import ConvBPDN

    constant = lipschitz(filters, *image.shape[:2])
    options = ConvBPDN.Options({"MaxMainIter": iterations(effort), "RelStopTol": 0.0, "L": constant})
    return ConvBPDN(filters, image, lmbda, options).solve().squeeze()


def sporco_parallel(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """The ADMM that splits over groups of filters, in one process; rho = 25 lambda as above."""
    from sporco.admm.parcbpdn import ParConvBPDN

    options = {"MaxMainIter": iterations(effort), "RelStopTol": 0.0, "rho": 25 * lmbda}
    solver = ParConvBPDN(filters, image, lmbda, opt=ParConvBPDN.Options(options), nproc=1)
    return np.asarray(solver.solve()).squeeze()


@kept
def _scico_pgm(image: Array, filters: Array, lmbda: float) -> Any:
    import scico.numpy as snp
    from scico import functional, linop, loss
    from scico.optimize import AcceleratedPGM

    shape = (1, filters.shape[3], *image.shape[:2])
    convolve = linop.CircularConvolve(snp.array(filters.transpose(2, 3, 0, 1)), shape, ndims=2)
    forward = linop.Sum(convolve.output_shape, axis=1) @ convolve
    fidelity = loss.SquaredL2Loss(y=snp.array(image.transpose(2, 0, 1)), A=forward)
    constant = lipschitz(filters, *image.shape[:2])
    return AcceleratedPGM(fidelity, lmbda * functional.L1Norm(), L0=constant, x0=snp.zeros(shape, dtype=snp.float32))


def scico_pgm(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """FISTA composed of scico's operators, in JAX, at the exact Lipschitz constant."""
    solver = _scico_pgm(image, filters, lmbda)
    solver.x = solver.v = 0 * solver.x
    solver.t = 1.0
    for _ in range(iterations(effort)):
        solver.step()
    return np.asarray(solver.x)[0].transpose(1, 2, 0)


@kept
def _scico_admm(image: Array, filters: Array, lmbda: float) -> Any:
    import scico.numpy as snp
    from scico import functional, linop, loss
    from scico.optimize.admm import ADMM, FBlockCircularConvolveSolver

    shape = (filters.shape[3], *image.shape[:2])
    convolve = linop.CircularConvolve(snp.array(filters[:, :, 0].transpose(2, 0, 1)), shape, ndims=2)
    forward = linop.Sum(shape, axis=0) @ convolve
    return ADMM(
        f=loss.SquaredL2Loss(y=snp.array(image[..., 0]), A=forward),
        g_list=[lmbda * functional.L1Norm()],
        C_list=[linop.Identity(shape)],
        rho_list=[25 * lmbda],
        alpha=1.8,
        x0=snp.zeros(shape, dtype=snp.float32),
        subproblem_solver=FBlockCircularConvolveSolver(),
    )


def scico_admm(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """ADMM composed of scico's operators, in JAX; its solver for a sum of convolutions has one channel."""
    solver = _scico_admm(image, filters, lmbda)
    solver.x = 0 * solver.x
    solver.z_list = solver.z_list_old = [solver.x]
    solver.u_list = [solver.x]
    for _ in range(iterations(effort)):
        solver.step()
    return np.asarray(solver.z_list[0]).transpose(1, 2, 0)


def _lasso(estimator: Any, image: Array, filters: Array) -> Array:
    """The codes of an estimator with scikit-learn's interface, on the explicit matrix."""
    height, width, _ = image.shape
    estimator.fit(matrix(filters, height, width), image.ravel())
    return estimator.coef_.reshape(height, width, -1)


def scikit_learn(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """Cyclic coordinate descent on the explicit sparse matrix."""
    from sklearn.linear_model import Lasso

    return _lasso(Lasso(lmbda / image.size, fit_intercept=False, max_iter=10**5, tol=tolerance(effort)), image, filters)


def celer(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """Working sets with dual extrapolation on the explicit sparse matrix."""
    from celer import Lasso

    return _lasso(Lasso(lmbda / image.size, fit_intercept=False, tol=tolerance(effort)), image, filters)


def skglm(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """Working sets with Anderson acceleration on the explicit sparse matrix."""
    from skglm import Lasso

    # Its tolerance is on the subgradient of the objective over the number of pixels.
    lasso = Lasso(lmbda / image.size, fit_intercept=False, tol=tolerance(effort) * lmbda / image.size)
    return _lasso(lasso, image, filters)


@kept
def _correlations(atoms: Array) -> Any:
    from dicodile.utils.dictionary import compute_DtD

    return compute_DtD(atoms)


def dicodile(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """Locally greedy coordinate descent in one process."""
    from dicodile.update_z.coordinate_descent import coordinate_descent

    atoms, signal = filters.transpose(3, 2, 0, 1).astype(np.float64), image.transpose(2, 0, 1).astype(np.float64)
    with redirect_stdout(StringIO()):
        found, *_ = coordinate_descent(
            signal, atoms, lmbda, DtD=_correlations(atoms), tol=tolerance(effort), max_iter=10**7
        )
    codes = np.zeros((*image.shape[:2], filters.shape[3]))
    codes[: found.shape[1], : found.shape[2]] = found.transpose(1, 2, 0)
    return codes


def _quasinat(image: Array, filters: Array, lmbda: float, solver: Any) -> Array:
    import torch

    from quasinat.sparse_coding import SparseCodingProblem, solve

    torch.set_num_threads(1)
    images = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
    bank = torch.from_numpy(np.ascontiguousarray(filters.transpose(3, 2, 0, 1)))
    return solve(SparseCodingProblem(images, bank, lmbda), solver).codes[0].permute(1, 2, 0).numpy()


def quasinat_descent(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """Our coordinate descent, stopping rule and dense codes included."""
    from quasinat.sparse_coding import CoordinateDescent

    return _quasinat(image, filters, lmbda, CoordinateDescent(tolerance=tolerance(effort), threads=1))


def quasinat_admm(image: Array, filters: Array, lmbda: float, effort: int) -> Array:
    """Our ADMM for a number of steps, without residual checks but the last."""
    from quasinat.sparse_coding import ADMM

    steps = iterations(effort)
    return _quasinat(image, filters, lmbda, ADMM(tolerance=0.0, max_steps=steps, check_every=steps))


PEERS: dict[str, Peer] = {
    "quasinat CoordinateDescent": quasinat_descent,
    "quasinat ADMM": quasinat_admm,
    "sporco admm.cbpdn, defaults": sporco_admm,
    "sporco admm.cbpdn, rho = 25 lambda": sporco_admm_fixed,
    "sporco admm.parcbpdn": sporco_parallel,
    "sporco pgm.cbpdn": sporco_pgm,
    "scico AcceleratedPGM": scico_pgm,
    "scico ADMM": scico_admm,
    "scikit-learn Lasso": scikit_learn,
    "celer Lasso": celer,
    "skglm Lasso": skglm,
    "dicodile coordinate_descent": dicodile,
}
POSED_AS = {"scico ADMM": "grey", "dicodile coordinate_descent": "inside"}


def posed(how: str, image: Array, filters: Array) -> tuple[Array, Array]:
    """The image and the filters of the problem that a peer can solve."""
    if how != "grey":
        return image, filters
    filters = filters.mean(axis=2, keepdims=True)
    return image.mean(axis=2, keepdims=True), filters / np.linalg.norm(filters, axis=(0, 1), keepdims=True)


@kept
def optimum(how: str, image: Array, filters: Array, lmbda: float) -> float:
    """The least objective, by 1,000 iterations of SPORCO in float64 with a fixed rho = 25 lambda."""
    from sporco.admm.cbpdn import ConvBPDN

    options = {"MaxMainIter": 1000, "RelStopTol": 1e-9, "rho": 25 * lmbda, "AutoRho": {"Enabled": False}}
    options |= {"NoBndryCross": how == "inside", "DataType": np.float64}
    codes = ConvBPDN(filters, image, lmbda, ConvBPDN.Options(options)).solve().squeeze()
    return objective(image, filters, codes, lmbda)


def measure(peer: Peer, image: Array, filters: Array, lmbda: float, best: float) -> dict[str, float] | None:
    """The time and the gap of the least effort that suffices; `None` where none does."""

    def gap(effort: int) -> float:
        return objective(image, filters, peer(image, filters, lmbda, effort), lmbda) / best - 1

    high = next((effort for effort in range(STRIDE, MOST_EFFORT + 1, STRIDE) if gap(effort) <= GAP), None)
    if high is None:
        return None
    low = high - STRIDE
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if gap(middle) <= GAP else (middle, high)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        peer(image, filters, lmbda, high)
        seconds.append(time.perf_counter() - start)
    return {"seconds": median(seconds), "gap": gap(high), "effort": high}


@cache
def versions(package: str) -> str:
    """`package` with its version, and JAX's where it computes with that."""
    names = [package, "jax"] if package == "scico" else [package]
    return ", ".join(f"{name} {version(name)}" for name in names)


def high_passes(folder: Path, count: int) -> list[Array]:
    """The first test images of CIFAR-10 (H, W, BGR) in [0, 1], without the low frequencies of the Tikhonov split."""
    from sporco.signal import tikhonov_filter

    from quasinat.data.cifar10 import read_batch

    pixels = read_batch(folder / "test_batch")[0][:count].numpy()
    images = pixels.transpose(0, 2, 3, 1)[..., ::-1].astype(np.float32) / 255
    return [np.ascontiguousarray(tikhonov_filter(image, 5, 16)[1]) for image in images]


def run(images: list[Array], filters: Array, lmbda: float, chosen: list[str]) -> list[dict[str, Any]]:
    """Measures the chosen peers, printing as it goes."""
    rows = []
    print(f"{'peer':36}{'posed as':10}{'s/image':>9}{'largest gap':>13}{'effort':>9}  version")
    for name in chosen:
        how = POSED_AS.get(name, "colour")
        problems = [posed(how, image, filters) for image in images]
        try:
            PEERS[name](*problems[0], lmbda, 1)
        except ImportError as error:
            print(f"{name:36}skipped: {error}")
            continue
        found = [measure(PEERS[name], *p, lmbda, optimum(how, *p, lmbda)) for p in problems]
        reached = [f for f in found if f is not None]
        if len(reached) < len(found):
            print(f"{name:36}{how:10}{len(found) - len(reached)} of {len(found)} images not within the gap")
            continue
        seconds, gap = mean(f["seconds"] for f in reached), max(f["gap"] for f in reached)
        efforts = sorted(int(f["effort"]) for f in reached)
        package = versions(name.split()[0])
        print(f"{name:36}{how:10}{seconds:9.4f}{gap:13.2e}{efforts[0]:6d}-{efforts[-1]:<3d} {package}", flush=True)
        rows.append({"peer": name, "posed_as": how, "seconds_per_image": seconds, "largest_gap": gap})
        rows[-1] |= {"version": package, "images": reached}
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, required=True, help="the folder with CIFAR-10's test_batch")
    parser.add_argument("--filters", type=Path, required=True, help="an .npz whose `basis` is (S, S, C, K), BGR")
    parser.add_argument("--lmbda", type=float, default=0.2)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    filters = np.load(chosen.filters)["basis"]
    rows = run(high_passes(chosen.cifar, chosen.images), filters, chosen.lmbda, chosen.peers)
    if chosen.json:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        result = {"gap": GAP, "lmbda": chosen.lmbda, "processors": processors, "peers": rows}
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
