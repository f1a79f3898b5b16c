"""`FusedADMM` against `ADMM` and against plain convolutions; in Triton's interpreter where there is no CUDA device."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from quasinat.errors import UsageError
from quasinat.sparse_coding import ADMM, Result, SparseCodingProblem, convolve, correlate, solve
from quasinat.sparse_coding import fused_admm as fused
from quasinat.sparse_coding._kernels import fused_admm_triton as kernels
from quasinat.sparse_coding.convolution import wrap_around
from quasinat.sparse_coding.fused_admm import FusedADMM

from .conftest import problem_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# images, filters, channels, size, height, width: odd and even sizes, one tile of pixels and several, K and C S beyond a
# block, filters as large as the image.
CASES = [
    *[(2, 5, 1, 3, 9, 7), (1, 5, 3, 4, 8, 13), (2, 20, 2, 8, 11, 16)],
    *[(3, 1, 3, 1, 6, 5), (1, 70, 1, 2, 12, 17), (1, 5, 5, 13, 13, 14)],
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


def problem_like(case: tuple[int, ...], sparsity: float = 0.05) -> SparseCodingProblem:
    images, filters, channels, size, *_ = case
    sizes = {"images": images, "filters": filters, "channels": channels, "size": size, "shape": case[4:]}
    problem = problem_of(**sizes, sparsity=sparsity)
    return replace(problem, images=problem.images.float().to(DEVICE), filters=problem.filters.float().to(DEVICE))


def in_double(problem: SparseCodingProblem) -> SparseCodingProblem:
    return replace(problem, images=problem.images.double(), filters=problem.filters.double())


def random_state(problem: SparseCodingProblem, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(problem.codes_shape(), generator=generator).to(DEVICE)


def steps(solver: ADMM | FusedADMM, problem: SparseCodingProblem, state: Tensor, count: int) -> Tensor:
    prepared = solver.prepare(problem)
    for _ in range(count):
        state = solver.step(prepared, state)
    return state


@every_case
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_the_residual_is_that_of_the_convolution(case: tuple[int, ...], threshold: float) -> None:
    problem = problem_like(case)
    state, double = random_state(problem), in_double(problem)
    found = kernels.residual(state, problem.images, kernels.synthesis_matrix(problem.filters), threshold, "ieee")
    v = (state - 2 * state.clamp(-threshold, threshold)).double()
    expected = double.images - convolve(double.filters, v)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@every_case
def test_the_update_is_that_of_the_correlation(case: tuple[int, ...]) -> None:
    problem = problem_like(case)
    state, double = random_state(problem), in_double(problem)
    w = wrap_around(problem.images, case[3]).contiguous()
    found = kernels.update(state, w, kernels.analysis_matrix(problem.filters), 0.3, 1.7, "ieee")
    u = state.double().clamp(-0.3, 0.3)
    expected = state + 1.7 * (correlate(double.filters, double.images) - u)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "tf32"])
def test_every_precision_runs(precision: fused.Precision) -> None:
    problem = problem_like(CASES[1])
    expected = steps(ADMM(), problem, random_state(problem), 1)
    found = steps(FusedADMM(precision=precision), problem, random_state(problem), 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3 if precision == "tf32" else 1e-5)


# The whole of a kernel's way to machine code except running it; Triton brings the assembler.
COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from quasinat.sparse_coding._kernels import fused_admm_triton as kernels

floats = {"threshold", "relaxation", "inverse"}
arrays = {"images", "filters", "columns", "residual", "w", "parts", "totals"}
blocks = {"SIZE": 8, "BLOCK_PIXELS": kernels.PIXELS, "BLOCKS": 7, "BLOCK": kernels.TILES, "PRECISION": sys.argv[2]}
blocks |= {"MAPS_PADDED": 64, "TAPS_PADDED": 192}
for name in ("columns_kernel", "fold_kernel", "update_kernel", "squares_kernel", "total_kernel"):
    kernel, signature, constants = getattr(kernels, name), {}, {}
    blocks |= {"BLOCK_MAPS": 64 if name == "update_kernel" else 32, "BLOCK_ROWS": 32, "BLOCK_TAPS": 32}
    for place, argument in enumerate(kernel.arg_names):
        if argument.isupper():
            signature[argument], constants[(place,)] = "constexpr", blocks[argument]
        elif argument in ("state", "before", "after"):
            signature[argument] = "*" + sys.argv[3]
        else:
            signature[argument] = "*fp32" if argument in arrays else "fp32" if argument in floats else "i32"
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    compiled = compile(ASTSource(kernel, signature, constants), target=target, options=kernels.LAUNCH)
    assert compiled.asm["cubin"] and compiled.metadata.shared <= 64 * 1024, (name, compiled.metadata.shared)
"""


@pytest.mark.parametrize("target", ["80 ieee fp32", "80 tf32x3 fp16", "90 ieee fp16"])
def test_the_kernels_compile_for_gpus(tmp_path: Path, target: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = tmp_path / "compile.py"
    script.write_text(COMPILE, encoding="utf-8")
    command = [sys.executable, "-W", "error", script, *target.split()]
    subprocess.run(command, env=environment, check=True, timeout=120)


@every_case
@pytest.mark.parametrize("count", [1, 10])
def test_the_iterates_are_those_of_the_admm(case: tuple[int, ...], count: int) -> None:
    problem = problem_like(case)
    start = random_state(problem, 0.1)
    found = steps(FusedADMM(), problem, start, count)
    expected = steps(ADMM(), in_double(problem), start.double(), count)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@every_case
@pytest.mark.parametrize("sparsity", [0.05, 0.0])
def test_the_residual_norms_are_those_of_the_admm(case: tuple[int, ...], sparsity: float) -> None:
    problem = problem_like(case, sparsity)
    reference, solver = ADMM(), FusedADMM()
    before = random_state(problem, 0.1)
    after = steps(reference, problem, before, 1)
    expected = reference.residual(reference.prepare(problem), before, after)
    torch.testing.assert_close(solver.residual(solver.prepare(problem), before, after), expected, rtol=1e-4, atol=0)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy, which the interpreter runs on
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible_in_its_own_image(bad: float) -> None:
    problem, solver = problem_like(CASES[0]), FusedADMM()
    before = random_state(problem)
    before[1, 2, 3, 4] = bad
    prepared = solver.prepare(problem)
    residual = solver.residual(prepared, before, solver.step(prepared, before))
    assert residual.isfinite().tolist() == [True, False]


def test_a_step_leaves_its_state_alone() -> None:
    problem, solver = problem_like(CASES[0]), FusedADMM()
    state = random_state(problem)
    after = solver.step(solver.prepare(problem), state)
    assert torch.equal(state, random_state(problem))
    assert after.data_ptr() != state.data_ptr()


# Whole steps on even sizes: torch's FFT of some odd ones has another last bit alone than in a batch. Kernels on all.
@pytest.mark.parametrize("case", [(3, 5, 1, 3, 8, 8), CASES[2]])
def test_an_image_does_not_depend_on_its_batch(case: tuple[int, ...]) -> None:
    problem, solver = problem_like(case), FusedADMM()
    start = random_state(problem)
    together = steps(solver, problem, start, 5)
    for i in range(len(start)):
        alone = steps(solver, problem.select(slice(i, i + 1)), start[i : i + 1], 5)
        assert torch.equal(alone, together[i : i + 1])


@every_case
def test_no_kernel_mixes_the_images_of_a_batch(case: tuple[int, ...]) -> None:
    problem, solver = problem_like((3, *case[1:])), FusedADMM()
    state, w = random_state(problem), wrap_around(problem.images, case[3]).contiguous()
    everything = solver.prepare(problem)

    def kernels_on(rows: slice) -> tuple[Tensor, ...]:
        prepared = everything.keep(rows)
        residual = kernels.residual(state[rows], prepared.images, prepared.synthesis, 0.3, "ieee")
        after = kernels.update(state[rows], w[rows], prepared.analysis, 0.3, 1.8, "ieee")
        return residual, after, solver.residual(prepared, state[rows], after)

    together = kernels_on(slice(None))
    for i in range(3):
        alone = kernels_on(slice(i, i + 1))
        assert all(torch.equal(mine, all_of_them[i : i + 1]) for mine, all_of_them in zip(alone, together, strict=True))


@pytest.mark.parametrize(("storage", "close"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_storage_changes_little(storage: torch.dtype, close: float) -> None:
    problem = problem_like(CASES[1])
    start = random_state(problem, 0.1)
    half = FusedADMM(storage=storage)
    found = steps(half, problem, half.load(problem, start), 10)
    assert found.dtype == half.init(problem).dtype == storage
    torch.testing.assert_close(found.float(), steps(FusedADMM(), problem, start, 10), rtol=0, atol=close)
    prepared = half.prepare(problem)
    assert half.sparse(prepared, found).dtype == half.residual(prepared, start, found).dtype == torch.float32


def test_strided_tensors_are_taken_and_states_given_back() -> None:
    problem, solver = problem_like(CASES[1]), FusedADMM()
    maps = random_state(problem).to(memory_format=torch.channels_last)
    state = solver.load(problem, maps)
    assert state.is_contiguous()
    assert torch.equal(solver.maps(solver.prepare(problem), state), maps)
    assert solver.load(problem, state).data_ptr() != state.data_ptr()
    images = problem.images.to(memory_format=torch.channels_last)
    strided = replace(problem, images=images, filters=problem.filters.transpose(2, 3).contiguous().transpose(2, 3))
    assert torch.equal(steps(solver, strided, maps, 2), steps(solver, problem, state, 2))


def test_an_empty_batch() -> None:
    problem, solver = problem_like(CASES[0]), FusedADMM()
    empty = problem.select(slice(0, 0))
    prepared, before = solver.prepare(empty), solver.init(empty)
    after = solver.step(prepared, before)
    assert after.shape == empty.codes_shape()
    assert solver.residual(prepared, before, after).shape == (0,)


def test_a_solve_reaches_the_optimum_and_a_warm_start_is_quick() -> None:
    problem = problem_like((3, 6, 3, 4, 12, 10))
    tight = solve(in_double(problem), ADMM(tolerance=1e-6, max_steps=5000))
    found = solve(problem, FusedADMM(tolerance=1e-3, max_steps=300))
    assert found.solver == "fused-admm"
    assert found.result.tolist() == [Result.converged] * 3
    torch.testing.assert_close(found.objective.double(), tight.objective, rtol=1e-4, atol=0)
    reference = solve(problem, ADMM(tolerance=1e-3, max_steps=300))
    torch.testing.assert_close(found.codes, reference.codes, rtol=0, atol=1e-4)
    assert int(solve(problem, FusedADMM(), start=found.state).steps.max()) <= 5


def test_other_boundaries_are_solved_as_by_the_admm() -> None:
    problem = replace(problem_like((1, 4, 2, 3, 8, 9)), boundary="reflect")
    found, expected = (solve(problem, solver(max_steps=20, tolerance=0.0)) for solver in (FusedADMM, ADMM))
    torch.testing.assert_close(found.reconstruction, expected.reconstruction, rtol=0, atol=1e-5)


def test_what_the_kernels_cannot_solve_is_refused() -> None:
    problem = problem_like(CASES[0])
    many, large = torch.zeros(2**17, 1, 1, 1, device=DEVICE), torch.zeros(1, 1, 128, 128, device=DEVICE)
    refused = {
        "it computes in float32, and the images are torch.float64": in_double(problem),
        "the problem has a mask": replace(problem, mask=torch.ones_like(problem.images)),
        "131072 maps of 128 x 128 pixels": replace(problem, images=large, filters=many),
    }
    for reason, wrong in refused.items():
        with pytest.raises(UsageError, match=rf"FusedADMM cannot run: {reason}.*; use ADMM\(\)"):
            FusedADMM().prepare(wrong)


def test_gradients_are_refused_where_they_would_be_lost() -> None:
    problem = problem_like(CASES[0])
    problem.images.requires_grad_()
    with pytest.raises(UsageError, match="give no gradient"):
        FusedADMM().prepare(problem)
    with torch.no_grad():
        FusedADMM().prepare(problem)


def test_where_it_cannot_run_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert fused.available(torch.device("cpu")) is None
    monkeypatch.delenv("TRITON_INTERPRET")
    assert fused.available(torch.device("cpu")) == "its kernels need a CUDA device, and this is cpu"
    cpu = replace(problem_like(CASES[0]), images=torch.zeros(1, 1, 8, 8), filters=torch.zeros(2, 1, 3, 3))
    with pytest.raises(UsageError, match=r"FusedADMM cannot run: its kernels need a CUDA device.*; use ADMM\(\)"):
        FusedADMM().prepare(cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CC", "cc")
    assert fused.available(torch.device("cuda")) is None
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert "no C compiler" in (fused.available(torch.device("cuda")) or "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fused.available(torch.device("cuda")) == "Triton is not installed"


def test_hyperparameters_out_of_range_are_refused() -> None:
    wrong = {"tolerance": -1.0, "max_steps": -1, "penalty": 0.0, "relaxation": 2.0, "check_every": 0}
    for name, value in (wrong | {"storage": torch.float64}).items():
        with pytest.raises(UsageError, match=rf"FusedADMM\({name}=.*out of range; leave"):
            FusedADMM(**{name: value})


def test_the_floor_of_a_step_counts_what_it_says() -> None:
    # K = 2, C = 1, S = 3, 4 x 6 pixels; the half spectrum has 4 x 4 frequencies.
    state, scratch, images = 3 * 2 * 24 * 4, 2 * 3 * 24 * 4, 5 * 24 * 4 + 4 * 16 * 8
    assert fused.bytes_per_step(1, 2, 1, 3, 4, 6) == state + scratch + images + 16 * 8
    assert fused.bytes_per_step(5, 2, 1, 3, 4, 6) == 5 * (state + scratch + images) + 16 * 8
    assert fused.bytes_per_step(1, 2, 1, 3, 4, 6, torch.float16) == state // 2 + scratch + images + 16 * 8
    assert fused.flops_per_step(1, 64, 3, 8, 1, 1) == 49152  # the 49 kFLOP per pixel of the design notes
