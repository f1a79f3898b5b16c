import io
from typing import Any

import pytest
from rich.console import Console

from quasinat.errors import InputError
from quasinat.report import markdown_table, table_cells, terminal_table


def test_cells_are_percentages_with_intervals(results: dict[str, Any]) -> None:
    first, *_, last = table_cells(results)
    assert (first.label, first.n, str(first.cells[1])) == ("No defence", "100", "10.0 [5.0, 15.0]")
    assert (last.n, str(last.cells[-1])) == ("20", "not run")


def test_a_row_of_unequal_counts_gives_their_range(results: dict[str, Any]) -> None:
    results["rows"][0]["cells"]["clean"]["n"] = 30
    assert table_cells(results)[0].n == "30–100"


def test_markdown(results: dict[str, Any]) -> None:
    results["rows"][1]["label"] = "a|b"
    head, rule, first, second, *rest = markdown_table(results).splitlines()
    assert head == "| attack | classifier | n | Clean | FGSM-0.08 | BIM-0.03 | CW-0.03 |"
    assert rule == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    assert first.startswith("| undefended | No defence | 100 | 85.0 [80.0, 90.0] | 10.0 [5.0, 15.0] |")
    assert "a\\|b" in second
    assert rest[-1].endswith("| not run |")
    assert len(rest) + 2 == len(results["rows"])


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_table_cuts_no_number(results: dict[str, Any], width: int) -> None:
    for column in ("fgsm-0.04", "deepfool-0.03"):
        results["columns"] = [*results["columns"], column]
        for row in results["rows"]:
            row["cells"][column] = {"value": 0.5, "n": 100, "low": 0.4444, "high": 0.5555}
    written = io.StringIO()
    Console(width=width, file=written).print(terminal_table(results))
    text = written.getvalue()
    assert text.count("44.4–55.5") == 2 * len(results["rows"])
    assert "80.0–90.0" in text
    assert "not run" in text
    assert "…" not in text
    assert "DeepFool-" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("key", ["rows", "columns", "curves", "strata", "peak_memory"])
def test_a_missing_key_is_named(results: dict[str, Any], key: str) -> None:
    del results[key]
    with pytest.raises(InputError, match=f"'{key}'"):
        terminal_table(results)


def test_a_missing_nested_key_is_named(results: dict[str, Any]) -> None:
    del results["rows"][2]["cells"]["clean"]["low"]
    with pytest.raises(InputError, match=r"rows\[2\]\.cells\.clean\.low"):
        markdown_table(results)
