"""The audit of the pinned packages says what it did not look up, and the bill of materials lists what is installed."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pages import ROOT, page_module


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return page_module("audit", "tools")


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "constraints.txt"
    path.write_text("# pinned\none==1.0\ntwo_b==2.0  # the second\n")
    return path


def stub(answer: Any, errors: str = "") -> Any:
    """pip-audit, as it would answer."""
    text = answer if isinstance(answer, str) else json.dumps({"dependencies": answer, "fixes": []})
    return lambda command: subprocess.CompletedProcess(command, 0, text, errors)


ONE = {"name": "one", "version": "1.0", "vulns": []}
TWO = {"name": "two-b", "version": "2.0", "vulns": []}
BAD = TWO | {"vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "PYSEC-2", "fix_versions": []}]}
SKIPPED = [{"name": name, "skip_reason": f"{name} could not be audited"} for name in ("one", "two-b")]


def test_clean_packages_pass(tool: ModuleType, requirements: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--requirements", str(requirements)], stub([ONE, TWO])) == 0
    assert capsys.readouterr().out == "audited: 2 of 2 packages\n"


@pytest.mark.parametrize("offline", [[], ["--allow-offline"]])
def test_a_vulnerability_fails(
    offline: list[str], tool: ModuleType, requirements: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--requirements", str(requirements), *offline], stub([ONE, BAD])) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "vulnerable: two-b 2.0: PYSEC-1, mended in 2.1"
    assert said[1] == "vulnerable: two-b 2.0: PYSEC-2, mended in no version"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (SKIPPED, "not audited: 2 of 2 packages (one, two-b): one could not be audited"),
        ([ONE, SKIPPED[1]], "not audited: 1 of 2 packages (two-b): two-b could not be audited"),
        ([ONE], "not audited: 1 of 2 packages (two_b==2.0): it is not in the answer"),
        ("", "not audited: 2 of 2 packages (one==1.0, two_b==2.0): no route to host"),
        ("[]", "not audited: 2 of 2 packages (one==1.0, two_b==2.0): no route to host"),
    ],
)
def test_what_was_not_looked_up_is_said_and_fails_unless_allowed(
    answer: Any, said: str, tool: ModuleType, requirements: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--requirements", str(requirements)]
    assert tool.main(given, stub(answer, "trying\nno route to host\n")) == 2
    assert capsys.readouterr().out.splitlines()[0] == said
    assert tool.main([*given, "--allow-offline"], stub(answer, "trying\nno route to host\n")) == 0
    assert capsys.readouterr().out.splitlines()[0] == said


def test_a_tool_that_is_not_there_audits_nothing(tool: ModuleType, requirements: Path) -> None:
    def missing(command: list[str]) -> Any:
        raise FileNotFoundError(command[0])

    assert tool.main(["--requirements", str(requirements)], missing) == 2


def test_the_file_that_is_audited_pins_every_package(tool: ModuleType) -> None:
    lines = tool.pinned(ROOT / "constraints.txt")
    assert len(lines) > 100
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line) for line in lines)


def test_the_bill_of_materials_lists_torch_and_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"cyclonedx-py environment (.*?) -o", made)
    assert options is not None
    out = tmp_path / "sbom.json"
    command = [sys.executable, "-m", "cyclonedx_py", "environment", *options[1].split(), "-o", str(out)]
    command.remove("$(BIN)/python")
    subprocess.run(command, check=True, capture_output=True, timeout=300, cwd=ROOT)
    bill = json.loads(out.read_text(encoding="utf-8"))
    versions = {part["name"]: part["version"] for part in bill["components"]}
    assert versions["torch"] == version("torch")
    assert versions["safetensors"] == version("safetensors")
    assert bill["metadata"]["component"]["name"] == "quasinat"
    assert "timestamp" not in bill["metadata"]
    assert "serialNumber" not in bill
