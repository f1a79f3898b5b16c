"""The pages of tables: the same numbers in Markdown, LaTeX and HTML, from the result files alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from quasinat import cli
from quasinat.errors import InputError
from quasinat.report.results_page import results_html, tables_below, write_results
from quasinat.report.table_content import blocks_of, cell_text, described
from quasinat.report.table_latex import escaped, table_latex
from quasinat.report.table_sheet import table_markdown


def cell(value: float, n: int = 200, **more: float) -> dict[str, Any]:
    return {"status": "done", "value": value, "low": value - 0.05, "high": value + 0.05, "n": n, **more}


def result(table: str = "table1", preset: str = "smoke", **more: Any) -> dict[str, Any]:
    none = {"clean": cell(0.8), "fgsm-0.08": cell(0.03), "fgsm-0.08@0.58": cell(0.575)}
    stl = {"clean": cell(0.75), "fgsm-0.08": {"status": "not run"}, "fgsm-0.08@0.58": cell(0.7)}
    made = {
        "schema": 1,
        "table": table,
        "title": "Table 1",
        "caption": "CIFAR-10 & VGG_16, 100 %",
        "threat": "retrained",
        "preset": preset,
        "settings": {"network": "vgg-small", "seed": 0},
        "provenance": {"quasinat": "0.1", "torch": "2", "device": "cpu", "code": "abcdef0123456789"},
        "data": {"name": "cifar10", "train": 1000, "test": 200, "shape": [3, 32, 32], "fingerprint": "f"},
        "columns": ["clean", "fgsm-0.08"],
        "matched": {"fgsm-0.08": "fgsm-0.08@0.58"},
        "rows": [
            {
                "key": "none",
                "label": "No defence",
                "in_paper": True,
                "cells": none,
                "paper": {"clean": 0.93, "fgsm-0.08": 0.58},
            },
            {"key": "stl", "label": "STL <&>", "in_paper": False, "cells": stl, "paper": {}},
        ],
        "strengths": {
            "fgsm-0.08": {"dissimilarity": 0.08, "linf": 0.04, "psnr": 28.0},
            "fgsm-0.08@0.58": {"dissimilarity": 0.02, "linf": 0.01, "psnr": None},
        },
    }
    return made | more


def test_the_network_named_is_the_one_that_was_attacked() -> None:
    assert "; vgg-small. Threat" in described(result())
    assert "; MobileNetV2. Threat" in described(result("table7", network="mobilenet"))
    assert "; MobileNetV2, trained on with these images. Threat" in described(result(network="tuned mobilenet"))


def test_a_cell_has_ours_its_interval_the_papers_and_the_difference() -> None:
    assert cell_text(cell(0.784), 0.9298) == "78.4 ± 5.0 (93, −15)"
    assert cell_text(cell(0.784), 0.5) == "78.4 ± 5.0 (50, +28)"
    assert cell_text(cell(0.784), 0.787) == "78.4 ± 5.0 (79, 0)"
    assert cell_text(cell(0.784, flagged=0.25), None) == "78.4 ± 5.0, 25 flagged"
    assert cell_text({"status": "not run"}, 0.5) == "not run (50)"
    assert cell_text({"status": "none", "reason": ""}, None) == "–"


def test_both_strengths_have_the_same_rows_and_matched_cells_stand_beside_the_papers() -> None:
    stated, matched = blocks_of(result())
    assert stated.headings == ("clean", "fgsm-0.08")
    assert matched.headings == ("fgsm-0.08",)
    assert stated.rows[0][2] == ("80.0 ± 5.0 (93, −13)", "3.0 ± 5.0 (58, −55)")
    assert matched.rows[0][2] == ("57.5 ± 5.0 (58, −1)",)
    assert [row[0] for row in matched.rows] == ["No defence", "STL <&>"]
    for row in (without := result())["rows"]:
        row["cells"]["fgsm-0.08@0.58"] = {"status": "none", "reason": "no attack brings it there"}
    assert len(blocks_of(without)) == 1
    assert "- fgsm-0.08, strength-matched: no attack brings it there" in table_markdown(without)


def test_a_row_of_the_papers_that_was_not_run_keeps_its_printed_numbers() -> None:
    made, empty = result(), {"status": "not run"}
    cells = dict.fromkeys(["clean", "fgsm-0.08", "fgsm-0.08@0.58"], empty)
    printed = {"clean": 0.92, "fgsm-0.08": 0.83}
    made["rows"].append({"key": "pd", "label": "PixelDefend", "in_paper": True, "cells": cells, "paper": printed})
    made["rows"].append({"key": "tvm", "label": "TVM", "in_paper": False, "cells": cells, "paper": {}})
    stated, matched = blocks_of(made)
    assert stated.rows[-1] == ("PixelDefend", True, ("not run (92)", "not run (83)"))
    assert [row[0] for row in matched.rows] == ["No defence", "STL <&>"]
    markdown, latex, html = table_markdown(made), table_latex(made), results_html([made])
    assert markdown.count("| PixelDefend | not run (92) | not run (83) |") == 1
    assert latex.count(r"PixelDefend & not run (92) & not run (83) \\") == 1
    assert html.count('<td class="number">not run (83)</td>') == 1
    for text in (markdown, latex, html):
        assert "Not run yet: TVM." in text


def test_every_cell_is_in_each_of_the_three_forms() -> None:
    made = result()
    markdown, latex, html = table_markdown(made), table_latex(made), results_html([made])
    for block in blocks_of(made):
        for label, _, cells in block.rows:
            for text in (label, *cells):
                assert text in markdown
                assert escaped(text) in latex
                assert text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in html
    assert "| fgsm-0.08, matched | 0.0200 | 0.0100 | – |" in markdown
    assert "code abcdef012345" in html


def test_latex_is_balanced_and_nothing_special_is_left_in_it() -> None:
    text = table_latex(result())
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert text.startswith("% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.\n")
    body = text.partition("\n")[2]
    assert not re.findall(r"(?<!\\)[%#_]|[±−×–∞]|(?<!\$)[<>]|  ", body)
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) in (1, 2)
    assert re.findall(r"\\label\{(.*)\}", text) == ["table1-smoke-stated", "table1-smoke-matched"]
    assert escaped("50 % of x_1 & y\\z") == r"50 \% of x\_1 \& y\textbackslash{}z"


def test_latex_fits_the_line_whatever_the_columns() -> None:
    names = [f"jpeg-{i}" for i in range(21)]
    made = result(columns=["clean", *names], matched={})
    for i, row in enumerate(made["rows"]):
        row["cells"] = {name: cell(0.5 + i / 10) for name in made["columns"]}
    text = table_latex(made)
    assert (
        text.count(r"\begin{table}") == text.count(r"\resizebox{\linewidth}{!}{%") == text.count(r"\end{tabular}}") == 3
    )
    assert re.findall(r"\\begin\{tabular\}\{l(r+)\}", text) == ["r" * 8, "r" * 8, "r" * 6]
    labels = ["table1-smoke-stated", "table1-smoke-stated-2", "table1-smoke-stated-3"]
    assert re.findall(r"\\label\{(.*)\}", text) == labels
    assert "At the stated budgets, part 3 of 3.}" in text
    assert [text.count(name) for name in ("& jpeg-6 &", "& jpeg-7 &", "& jpeg-15 &")] == [0, 1, 1]
    assert r"\resizebox" not in table_latex(result())
    narrow = result()
    narrow["rows"][1]["label"] = "STL's network, image not transformed"
    stated, matched = table_latex(narrow).split(r"\begin{table}")[1:]
    assert r"\resizebox" in stated  # for the name's sake
    assert r"\resizebox" not in matched


def test_the_command_writes_the_pages_of_all_files_below_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, made in (("a", result()), ("b/c", result(preset="smoke-seed-1")), ("b", result("table5"))):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / folder / f"{made['table']}.json").write_text(json.dumps(made))
    (tmp_path / "in" / "other.json").write_text('{"rows": []}')
    (tmp_path / "in" / "list.json").write_text("[1]")
    out = tmp_path / "out"
    assert cli.run(["report", str(tmp_path / "in"), "--out", str(out)]) == 0
    written = {Path(line) for line in capsys.readouterr().out.split()}
    assert written == set(out.iterdir())
    assert {path.name for path in written} == {
        "index.html",
        "results.md",
        "table1-smoke.tex",
        "table1-smoke-seed-1.tex",
        "table5-smoke.tex",
    }
    before = {path: path.read_bytes() for path in written}
    write_results(tmp_path / "in", out)
    assert {path: path.read_bytes() for path in written} == before


def test_no_result_file_and_one_of_another_schema_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no result file of a table below"):
        tables_below(tmp_path)
    (tmp_path / "old.json").write_text(json.dumps(result(schema=0)))
    with pytest.raises(InputError, match=r"old\.json has schema 0, this version reads 1; run it again"):
        tables_below(tmp_path)


def test_a_damaged_file_is_named_even_beside_whole_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.dumps(result())
    (tmp_path / "whole.json").write_text(whole)
    for text, said in (
        (whole[: len(whole) // 2], "is damaged: it is not readable JSON"),
        ("", "is damaged: it is not readable JSON"),
        (json.dumps({key: value for key, value in result().items() if key != "rows"}), "is damaged: it lacks 'rows'"),
        (json.dumps(result("table5", rows=[{}])), "is not as `quasinat run` writes it"),
    ):
        (tmp_path / "table5.json").write_text(text)
        assert cli.run(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert f"{tmp_path / 'table5.json'} {said}" in error
        assert "run the table again" in error
        assert not (tmp_path / "out").exists()


def test_two_files_of_the_same_table_and_preset_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "table1-smoke.json").write_text(json.dumps(result()))
    one, other = (tmp_path / folder / "table1-smoke.json" for folder in ("a", "b"))
    with pytest.raises(InputError) as refused:
        write_results(tmp_path, tmp_path / "out")
    assert str(refused.value).startswith(f"{one} and {other} are both table1 at the preset smoke; move one")
    assert list(write_results(tmp_path / "a", tmp_path / "out"))
