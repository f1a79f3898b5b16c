"""What the README shows is what the committed result file says, and its code runs."""

import re
from pathlib import Path

import pytest

from pages import code_blocks, run_page
from quasinat.files import read_json
from quasinat.report import markdown_table, sentences

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_result_files() -> None:
    assert markdown_table(read_json(ROOT / "results" / "demo" / "results.json")).strip() in README


@pytest.mark.parametrize("run", ["demo", "demo-seed-1"])
def test_what_does_not_hold_is_said(run: str) -> None:
    prose = " ".join(README.split())
    for sentence in sentences(read_json(ROOT / "results" / run / "results.json"))["What does not hold"]:
        assert sentence in prose


def test_pictures_and_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).is_file(), target


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(code_blocks(README, "python")) == 2
    run_page(README, commands=False)
    assert capsys.readouterr().out.count("(n = 100)") == 2
