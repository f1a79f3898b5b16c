"""docs/reliability.md shows what its result files say, and states the limits that the code has."""

import json
from pathlib import Path

from hardening.test_threads import TOLERANCES
from pages import page_module
from quasinat import files, layer_options
from quasinat.data import fetch, image_tree, unpacking
from quasinat.errors import LONGEST
from quasinat.sparse_coding import solver_card

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results" / "reliability"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_page_is_that_of_the_result_files() -> None:
    made = page_module("reliability_page")
    sections = made.sections(FOLDER)
    assert made.update(text("docs/reliability.md"), sections) == text("docs/reliability.md")
    assert f"{json.loads(text('results/reliability/fuzz.json'))['cases']:,} cases" in sections["fuzz"]


def test_the_soaks_section_is_there_with_its_file_only() -> None:
    made = page_module("reliability_page")
    assert made.soaked(None) == ""
    server = {
        "in use, MiB": {"mean": 2, "slope a minute": 0.5},
        "free and kept, MiB": {"mean": 1, "slope a minute": -0.25},
    }
    said = made.soaked({"requests": 1000, "each": {"a": 1}, "server": server})
    assert "| requests | 1,000 |" in said
    assert "| 2; +0.500 |" in said
    assert "| 1; -0.250 |" in said
    assert ("## The service under load" in text("docs/reliability.md")) == (FOLDER / "soak.json").is_file()


def test_a_file_of_several_runs_is_called_one() -> None:
    made, result = page_module("reliability_page"), json.loads(text("results/reliability/fuzz.json"))
    states = {reader["code"] for reader in result["readers"].values()}
    assert (f"merged of runs of {len(states)} states of the code" in text("docs/reliability.md")) == (len(states) > 1)
    for reader in result["readers"].values():
        reader["code"] = "one"
    assert "merged" not in made.fuzzed(result)


def test_every_fuzzed_reader_is_in_the_list_of_readers() -> None:
    listed = text("docs/reliability.md").split("| reader | what it reads | where |")[1].split("###")[0]
    named = {name.strip() for line in listed.splitlines()[2:] if line for name in line.split("|")[1].split(",")}
    assert named == set(page_module("fuzz").READERS)


def test_every_reader_has_at_least_the_cases_that_are_stated() -> None:
    cases = sorted(reader["cases"] for reader in json.loads(text("results/reliability/fuzz.json"))["readers"].values())
    stated = " ".join(text("SECURITY.md").split())
    assert "every reader withstands at least 1,500 damaged inputs, the dearest one 300" in stated
    assert cases[0] >= 300
    assert cases[1] >= 1500


def test_the_limits_are_those_of_the_code() -> None:
    stated = " ".join(text("SECURITY.md").split())
    assert unpacking.UNPACKED == 2**30
    assert "what a compressed tar or a table unpacks to | 1 GiB, or twice its own size" in stated
    assert f"xz's own tables | {unpacking.XZ_MEMORY // 2**20} MiB" in stated
    assert f"a file of CIFAR-10's archive | {fetch.LARGEST // 2**20} MiB" in stated
    assert f"JSON | {files.DEPTH} levels" in stated
    assert f"steps and passes that a file can ask for | {solver_card.MOST:,}" in stated
    assert f"threads that a file can ask for | {solver_card.MOST_THREADS:,}" in stated
    assert f"filter updates that a file can ask for | {layer_options.MOST_REFINES:,}" in stated
    assert f"linked folders on one path | {image_tree.LINKS}" in stated
    assert f"characters of an error's problem | {LONGEST:,}" in stated


def test_the_determinism_stated_is_the_one_tested() -> None:
    stated = " ".join(text("docs/reliability.md").split())
    assert TOLERANCES["auto"] == TOLERANCES["coordinate descent"] == 0
    assert "the stated tolerance is 0. By `ADMM`" in stated
    assert f"it is {TOLERANCES['admm']:g}," in stated
