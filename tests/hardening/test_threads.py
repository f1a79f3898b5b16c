"""The numbers with 1, 2 and 4 threads: the tolerances that docs/reliability.md states.

Coordinate descent adds in the same order whatever the threads; ADMM's transforms may not, which rounding then shows.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from layers import images_of, stratified, universal
from quasinat.sparse_coding import ADMM, Auto, CoordinateDescent, SparseCodingProblem, solve
from quasinat.sparse_coding.coordinate_descent import available
from quasinat.tiling import project_in_tiles

TOLERANCES = {"auto": 0.0, "coordinate descent": 0.0, "admm": 1e-6}
THREADS = (1, 2, 4)
SOLVERS: dict[str, Any] = {"auto": Auto(), "admm": ADMM(), "coordinate descent": CoordinateDescent()}
if available():
    del SOLVERS["coordinate descent"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def each(make: Any) -> list[Any]:
    """What is made with each number of threads."""
    found = []
    for count in THREADS:
        torch.set_num_threads(count)
        found.append(make())
    return found


def apart(found: list[torch.Tensor]) -> float:
    return max(float((one - found[0]).abs().max()) for one in found)


@pytest.mark.parametrize("make", [universal, stratified])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_projection_does_not_depend_on_the_threads(make: Any, name: str) -> None:
    layer, images = make(3, solver=SOLVERS[name]), images_of(3, 5, 16, 15)
    assert apart(each(lambda: layer(images))) <= TOLERANCES[name]


@pytest.mark.parametrize("name", SOLVERS)
def test_codes_and_objectives_do_not_depend_on_the_threads(name: str) -> None:
    problem = SparseCodingProblem(images_of(1, 3, 16, 15), universal(1).filters[0], 0.05)
    found = each(lambda: solve(problem, SOLVERS[name]))
    assert apart([solution.codes for solution in found]) <= TOLERANCES[name]
    assert apart([solution.objective / found[0].objective for solution in found]) <= TOLERANCES[name]


def test_tiles_do_not_depend_on_the_threads() -> None:
    layer, images = universal(1), images_of(1, 1, 60, 52)
    assert apart(each(lambda: project_in_tiles(layer, images, tile=16, margin=12))) <= TOLERANCES["auto"]
