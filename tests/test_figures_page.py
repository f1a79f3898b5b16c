"""docs/figures.md: its pictures are there, and its numbers are those of the committed result file."""

import re
from pathlib import Path
from typing import Any

from quasinat.files import read_json
from quasinat.report.strata_sheet import strata_markdown

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")


def test_its_pictures_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert len(pictures) >= 6
    for name in pictures:
        assert (ROOT / "docs" / name).stat().st_size > 1000, name


def test_what_it_says_of_the_strata_is_in_the_result_file() -> None:
    text = (ROOT / "results" / "imagenet10" / "strata.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| all |"))
    own, others, universal = (part.strip() for part in row.split("|")[6:9])
    said = f"own dictionary is {own} dB, with those of other strata {others} dB, with a universal one {universal} dB"
    assert said in " ".join(PAGE.split())
    report: Any = read_json(ROOT / "results" / "imagenet10" / "strata.json")
    assert strata_markdown(report) == text
