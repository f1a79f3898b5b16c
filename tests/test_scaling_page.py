"""docs/scaling.md shows what its result file says, and the simulator does what can be worked out by hand."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results" / "performance"


@pytest.fixture(scope="module", autouse=True)
def benchmarks() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def test_the_page_is_that_of_the_result_file() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    scaling = module("scaling_page")
    measured = scaling.sections(FOLDER)
    assert scaling.update(page, measured) == page
    for text in measured.values():
        assert text.strip() in page
    for number in (f"{scaling.GPU_HOUR:.2f} $", f"{scaling.CORE_HOUR} $", f"{scaling.STORE / 1e9:.0f} GB/s"):
        assert number in " ".join(page.split())
    assert f"{scaling.CORES_EACH} cores beside" in " ".join(page.split())
    assert f"{scaling.NARROW_STEPS} at most" in " ".join(page.split())


def test_the_most_steps_of_narrow_maps_are_those_of_the_solver() -> None:
    from quasinat.sparse_coding.auto import NARROW_STEPS

    assert module("scaling_page").NARROW_STEPS == NARROW_STEPS


def test_the_h100_rates_are_those_of_its_output() -> None:
    found = module("scaling_page").h100(FOLDER / "h100.txt")
    assert found["32 float16 tf32x3"] == pytest.approx(14129.7, abs=0.1)


def test_workers_take_shards_from_a_queue() -> None:
    simulator = module("simulator")
    core = simulator.Worker(computing=0.9, files=0.1)
    assert simulator.projection(100, 10, 1, core, startup=5) == pytest.approx(105)
    assert simulator.projection(100, 10, 2, core, startup=5) == pytest.approx(55)
    assert simulator.projection(100, 10, 2, core, startup=5, later=10) == pytest.approx(65)  # five shards, then five
    assert simulator.projection(100, 10, 2, core, startup=5, later=20) == pytest.approx(65)  # six, and four
    assert simulator.projection(100, 10, 3, core) == pytest.approx(40)  # four shards for one of them
    assert simulator.projection(95, 10, 2, core) == pytest.approx(50)
    assert simulator.projection(100, 10, 1000, core) == pytest.approx(10)  # no shard is divided
    assert simulator.projection(100, 10, 1000, core, store=10, each=5) == pytest.approx(50)


def test_a_device_waits_for_its_files_only_where_the_cores_are_too_few() -> None:
    simulator = module("simulator")
    for cores, seconds in ((1, 40), (2, 20), (4, 10), (16, 10)):
        device = simulator.Worker(computing=1.0, files=4.0, cores=cores)
        assert simulator.projection(10, 10, 1, device) == pytest.approx(seconds)


def test_sums_and_learning_cost_what_they_should() -> None:
    simulator = module("simulator")
    wire = simulator.Network(latency=0.001, bandwidth=1e6)
    assert wire.all_reduce(1e6, 1) == 0
    assert wire.all_reduce(1e6, 2) == pytest.approx(2 * (0.001 + 0.5))
    assert wire.all_reduce(1e6, 4) == pytest.approx(6 * (0.001 + 0.25))
    rounds = {"rounds": 10, "message": 0, "network": wire}
    assert simulator.consensus_pass(8.0, 8, 1, **rounds) == pytest.approx(8)
    assert simulator.consensus_pass(8.0, 8, 3, **rounds) == pytest.approx(3 + 10 * 0.004)
    assert simulator.consensus_pass(8.0, 8, 100, **rounds) > 1  # a block is not divided


def test_the_simulator_meets_what_was_measured() -> None:
    found = list(module("scaling_page").held_against(json.loads((FOLDER / "scaling.json").read_text(encoding="utf-8"))))
    assert len(found) == 7
    for name, measured, made in found:
        assert abs(made / measured - 1) <= 0.15, name
