"""docs/tutorial.md: its commands and its code run, smaller, and its table is that of the committed result file."""

from pathlib import Path

import pytest
import torch

from experiments.test_white_box import SMALLEST, quick_checks
from pages import DOCS, ROOT, page_module, run_page
from quasinat.experiments.white_box_settings import PRESETS
from quasinat.files import read_json

PAGE = (DOCS / "tutorial.md").read_text(encoding="utf-8")
SMALLER = {
    "train_per_class=100, test_per_class=20": "train_per_class=6, test_per_class=1",
    "--filters 32 --epochs 5": "--filters 4 --epochs 1 --passes 1 --strata 2",
    "--epochs 10": "--epochs 1",
    "--preset small --images 100": "--preset small --images 2",
    "epochs=10": "epochs=1",
    "steps=10": "steps=2",
}


@pytest.mark.filterwarnings("ignore:.*fall back to Unrolled")  # so small a layer is not solved as well as a real one
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    quick_checks(monkeypatch)
    monkeypatch.setitem(PRESETS, "small", SMALLEST)
    monkeypatch.chdir(tmp_path)
    page = PAGE
    for shown, run in SMALLER.items():
        assert shown in page
        page = page.replace(shown, run)
    with torch.random.fork_rng(devices=[]):
        run_page(page, commands=True)
    assert {"photos.stl", "filters.png", "projected", "retrained.safetensors", "white-box"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert "under PGD" in capsys.readouterr().out


def test_its_table_is_the_result_files() -> None:
    module = page_module("tutorial_page")
    assert page_module("table").update(PAGE, module.sections(ROOT)) == PAGE


def test_what_it_says_of_the_table_holds() -> None:
    result = read_json(ROOT / "results" / "tutorial" / "white-box.json")
    worst = result["worst_case"]
    hardened = next(row["cells"] for row in result["rows"] if row["key"] == "adversarial")
    assert "cannot be told apart at 2/255" in " ".join(PAGE.split())
    assert hardened["linf:2/255"]["low"] < worst["linf:2/255"]["high"]
    assert worst["linf:2/255"]["low"] < hardened["linf:2/255"]["high"]
    assert worst["linf:8/255"]["high"] < hardened["linf:8/255"]["low"]  # "far behind at 8/255"
