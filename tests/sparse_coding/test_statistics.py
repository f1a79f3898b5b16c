"""The sufficient statistics against automatic differentiation of the fidelity they stand for, and plain loops."""

import subprocess
import sys
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quasinat.errors import InputError
from quasinat.sparse_coding import SparseCodingProblem, Statistics, statistics
from quasinat.sparse_coding._kernels import binding
from quasinat.sparse_coding.coordinate_descent import available, to_kernel

from .unchecked import unchecked

compiled = pytest.mark.skipif(available() is not None, reason=f"the statistics' kernel: {available()}")
PARTS = ("correlations", "cross", "energy")
CASES = [(1, 4, 3, (9, 12)), (3, 5, 4, (8, 8)), (2, 3, 5, (5, 7)), (1, 2, 1, (4, 4))]


def drawn(channels: int, filters: int, size: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Random filters, codes and images, unrelated to each other."""
    generator = torch.Generator().manual_seed(7)

    def normal(*of: int) -> Tensor:
        return torch.randn(*of, generator=generator, dtype=torch.float64)

    return normal(filters, channels, size, size), normal(4, filters, *shape), normal(4, channels, *shape)


def few(codes: Tensor, share: float, seed: int = 3) -> Tensor:
    """The codes with all but a share of them set to zero."""
    return codes * (torch.rand(codes.shape, generator=torch.Generator().manual_seed(seed)) < share)


def by_loops(z: Tensor, x: Tensor, size: int) -> Statistics:
    """The sums as they are defined."""
    (batch, filters, height, width), channels = z.shape, x.shape[1]
    correlations = z.new_zeros(filters, filters, 2 * size - 1, 2 * size - 1)
    cross = z.new_zeros(filters, channels, size, size)
    for b, row, column in product(range(batch), range(height), range(width)):
        here = z[b, :, row, column]
        for dy, dx in product(range(1 - size, size), repeat=2):
            there = z[b, :, (row + dy) % height, (column + dx) % width]
            correlations[:, :, dy + size - 1, dx + size - 1] += there.outer(here)
        for dy, dx in product(range(size), repeat=2):
            cross[:, :, dy, dx] += here.outer(x[b, :, (row + dy) % height, (column + dx) % width])
    return Statistics(correlations, cross, x.square().sum())


def by_kernel(z: Tensor, x: Tensor, size: int, threads: int = 1) -> Statistics:
    """The compiled sums, whatever the density."""
    return Statistics(*binding.statistics(x, to_kernel(z), z.shape[1], size, threads))


def assert_equal(ours: Statistics, theirs: Statistics, tolerance: float = 1e-10) -> None:
    for name in PARTS:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), CASES)
def test_gradient_and_value_are_the_fidelitys(channels: int, filters: int, size: int, shape: tuple[int, int]) -> None:
    f, z, x = drawn(channels, filters, size, shape)
    f.requires_grad_()
    fidelity = SparseCodingProblem(x, f, 0.1).fidelity(z).sum()
    (gradient,) = torch.autograd.grad(fidelity, f)
    sums = statistics(z, x, size)
    torch.testing.assert_close(sums.gradient(f.detach()), gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sums.fidelity(f.detach()), fidelity.detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), CASES)
def test_batches_add_up(channels: int, filters: int, size: int, shape: tuple[int, int]) -> None:
    _, z, x = drawn(channels, filters, size, shape)
    whole, parts = statistics(z, x, size), statistics(z[:1], x[:1], size) + statistics(z[1:], x[1:], size)
    assert isinstance(parts, Statistics)
    assert_equal(parts, whole)


def test_images_of_different_sizes_add_up() -> None:
    f, z, x = drawn(2, 3, 3, (6, 8))
    _, more_z, more_x = drawn(2, 3, 3, (9, 5))
    total = statistics(z, x, 3) + statistics(more_z, more_x, 3)
    both = SparseCodingProblem(x, f, 0.1).fidelity(z).sum() + SparseCodingProblem(more_x, f, 0.1).fidelity(more_z).sum()
    torch.testing.assert_close(total.fidelity(f), both, rtol=1e-10, atol=0)


def test_the_size_does_not_grow_with_the_set() -> None:
    _, z, x = drawn(3, 5, 4, (8, 8))
    assert statistics(z, x, 4).correlations.shape == statistics(z[:1], x[:1], 4).correlations.shape == (5, 5, 7, 7)


def test_scaled_statistics_are_those_of_a_repeated_set() -> None:
    _, z, x = drawn(2, 3, 3, (6, 8))
    assert_equal(statistics(z, x, 3).scaled(2.0), statistics(torch.cat([z, z]), torch.cat([x, x]), 3))


@pytest.mark.parametrize(("channels", "filters", "size", "shape"), CASES)
def test_the_sums_are_those_of_the_definition(channels: int, filters: int, size: int, shape: tuple[int, int]) -> None:
    _, z, x = drawn(channels, filters, size, shape)
    assert_equal(statistics(z, x, size), by_loops(z, x, size))


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_codes_of_other_images_are_refused(layout: str) -> None:
    _, z, x = drawn(2, 3, 3, (6, 8))
    codes = few(z, 0.05).to_sparse() if layout == "sparse" else z
    for images in (x[:2], x[..., :7], x[..., :5, :]):
        with unchecked(), pytest.raises(InputError, match="the codes of these images"):
            statistics(codes, images, 3)


@compiled
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 4),
    filters=st.integers(1, 9),
    size=st.integers(1, 9),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    share=st.sampled_from([0.0, 0.01, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_kernels_sums_are_the_transforms(
    channels: int, filters: int, size: int, height: int, width: int, share: float, seed: int
) -> None:
    """Also where distinct lags coincide, in images narrower than 2 S - 1."""
    size = min(size, height, width)
    _, z, x = drawn(channels, filters, size, (height, width))
    z = few(z, share, seed)
    assert_equal(by_kernel(z, x, size), statistics(z, x, size))


@compiled
@pytest.mark.parametrize(("channels", "filters", "size", "shape"), [*CASES, (1, 2, 3, (3, 3)), (2, 2, 4, (2, 3))])
def test_the_kernels_sums_are_those_of_the_definition(
    channels: int, filters: int, size: int, shape: tuple[int, int]
) -> None:
    _, z, x = drawn(channels, filters, size, shape)
    assert_equal(by_kernel(few(z, 0.5), x, size), by_loops(few(z, 0.5), x, size))


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sparse_codes_take_the_kernel(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    _, z, x = drawn(3, 5, 4, (12, 9))
    z, x = few(z, 0.05).to(dtype), x.to(dtype)
    ours = statistics(z.to_sparse(), x, 4)
    assert [getattr(ours, name).dtype for name in PARTS] == [dtype] * 3
    assert_equal(ours, statistics(z, x, 4), 1e-10 if dtype == torch.float64 else 1e-4)
    permuted = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert_equal(statistics(z.to_sparse(), permuted, 4), ours, 0)
    assert_equal(by_kernel(z, x, 4), ours, 0)
    monkeypatch.setattr(binding, "statistics", lambda *_: pytest.fail("the kernel was called"))
    assert_equal(statistics(torch.ones_like(z).to_sparse(), x, 4), statistics(torch.ones_like(z), x, 4))
    assert statistics(z.to_sparse(), x.clone().requires_grad_(), 4).cross.requires_grad
    monkeypatch.setenv("QUASINAT_NO_KERNEL", "1")
    assert_equal(statistics(z.to_sparse(), x, 4), statistics(z, x, 4))


@pytest.mark.parametrize("kernel", [pytest.param(True, marks=compiled), False])
@pytest.mark.parametrize("images", [0, 4])
def test_no_entries_and_no_images(images: int, kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setenv("QUASINAT_NO_KERNEL", "1")
    _, z, x = drawn(2, 3, 3, (6, 8))
    z, x = torch.zeros_like(z)[:images], x[:images]
    for codes in (z.to_sparse(), z):
        sums = statistics(codes, x, 3)
        assert sums.correlations.shape == (3, 3, 5, 5)
        assert sums.cross.shape == (3, 2, 3, 3)
        assert not sums.correlations.any()
        assert not sums.cross.any()
        torch.testing.assert_close(sums.energy, x.square().sum())


@compiled
def test_the_numbers_do_not_depend_on_the_threads() -> None:
    generator = torch.Generator().manual_seed(1)
    z = few(torch.randn(70, 7, 32, 32, generator=generator), 0.02)  # more images than are taken at a time
    x = torch.randn(70, 3, 32, 32, generator=generator)
    one = by_kernel(z, x, 5, threads=1)
    for threads in (2, 5, 100):
        assert_equal(by_kernel(z, x, 5, threads), one, 0)
    assert_equal(one, statistics(z, x, 5), 1e-3)


def test_images_are_transformed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    _, z, x = drawn(2, 3, 3, (6, 8))
    z = few(z, 0.05)
    whole, module, taken = statistics(z, x, 3), sys.modules[statistics.__module__], []
    dense = module._dense
    monkeypatch.setenv("QUASINAT_NO_KERNEL", "1")
    monkeypatch.setattr(module, "PIXELS_AT_A_TIME", 150)
    monkeypatch.setattr(module, "_dense", lambda *args: taken.append(len(args[0])) or dense(*args))
    for codes in (z, z.to_sparse()):
        assert_equal(statistics(codes, x, 3), whole)
    assert taken == [3, 1, 3, 1]


MEMORY = """
import resource
import torch
from quasinat.sparse_coding import statistics
torch.set_num_threads(1)
entries = 300 * 1024
places = torch.randint(64 * 32 * 32, (entries,)).sort().values
image = torch.arange(1024).repeat_interleave(300)
indices = torch.stack([image, places // 1024, places // 32 % 32, places % 32])
codes = torch.sparse_coo_tensor(indices, torch.randn(entries), (1024, 64, 32, 32)).coalesce()
images = torch.randn(1024, 3, 32, 32)
statistics(codes.index_select(0, torch.arange(1)), images[:1], 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
statistics(codes, images, 8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@compiled
@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is reported in other units")
def test_memory_does_not_grow_with_the_set() -> None:
    """A thousand images whose dense codes would take 256 MiB."""
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 40
