"""The same numbers whatever the number of threads: the tolerance that docs/reliability.md states, which is zero."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from layers import images_of, stratified, universal
from quasinat.sparse_coding import ADMM, Auto, CoordinateDescent, SparseCodingProblem, solve
from quasinat.sparse_coding.coordinate_descent import available
from quasinat.tiling import project_in_tiles

TOLERANCE = 0.0
THREADS = (1, 2, 4)
SOLVERS: dict[str, Any] = {"auto": Auto(), "admm": ADMM(), "coordinate descent": CoordinateDescent()}
if available():
    del SOLVERS["coordinate descent"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def each(make: Any) -> list[torch.Tensor]:
    """What is made with each number of threads."""
    found = []
    for count in THREADS:
        torch.set_num_threads(count)
        found.append(make())
    return found


def apart(found: list[torch.Tensor]) -> float:
    return max(float((one - found[0]).abs().max()) for one in found)


@pytest.mark.parametrize("make", [universal, stratified])
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
def test_a_projection_does_not_depend_on_the_threads(make: Any, solver: Any) -> None:
    layer, images = make(3, solver=solver), images_of(3, 5, 16, 15)
    assert apart(each(lambda: layer(images))) <= TOLERANCE


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
def test_codes_objectives_and_steps_do_not_depend_on_the_threads(solver: Any) -> None:
    problem = SparseCodingProblem(images_of(1, 5, 16, 15), universal(1).filters[0], 0.05)
    for name in ("codes", "objective", "steps"):
        assert apart(each(lambda name=name: getattr(solve(problem, solver), name).double())) <= TOLERANCE  # type: ignore[misc]


def test_tiles_do_not_depend_on_the_threads() -> None:
    layer, images = universal(1), images_of(1, 1, 60, 52)
    assert apart(each(lambda: project_in_tiles(layer, images, tile=16, margin=12))) <= TOLERANCE
