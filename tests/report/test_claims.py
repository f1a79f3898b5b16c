from typing import Any

import pytest

from quasinat.errors import InputError
from quasinat.report import claims, sentences
from quasinat.report.claims import verdict


def cell(low: float, high: float) -> dict[str, float]:
    return {"low": low, "high": high}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (cell(0.5, 0.6), cell(0.3, 0.4), "beats"),
        (cell(0.3, 0.4), cell(0.5, 0.6), "loses"),
        (cell(0.3, 0.55), cell(0.5, 0.6), "overlaps"),
        (cell(0.5, 0.6), cell(0.3, 0.5), "overlaps"),  # touching is not beating
        (cell(0.3, 0.5), cell(0.5, 0.6), "overlaps"),
        (cell(0.2, 0.9), cell(0.4, 0.5), "overlaps"),
    ],
)
def test_verdict(ours: dict[str, float], theirs: dict[str, float], expected: str) -> None:
    assert verdict(ours, theirs) == expected


def test_claims_against_hand_computed_cases(results: dict[str, Any]) -> None:
    found = {(c.row, c.rival, c.column): c.verdict for c in claims(results)}
    universal = {key[1:]: value for key, value in found.items() if key[0] == "retrained-universal"}
    assert universal == {
        ("none", "fgsm-0.08"): "beats",
        ("none", "bim-0.03"): "overlaps",
        ("none", "cw-0.03"): "beats",
        ("control-vanilla", "fgsm-0.08"): "beats",
        ("control-vanilla", "bim-0.03"): "overlaps",
        ("control-vanilla", "cw-0.03"): "loses",
        ("control-universal", "fgsm-0.08"): "beats",
        ("control-universal", "bim-0.03"): "beats",
        ("control-universal", "cw-0.03"): "overlaps",
    }
    assert {rival for row, rival, _ in found if row == "retrained-stratified"} == {
        "none",
        "control-vanilla",
        "control-stratified",
    }
    assert not any(column == "clean" for _, _, column in found)


def test_cells_that_were_not_run_make_no_claim(results: dict[str, Any]) -> None:
    del results["rows"][1]["cells"]["cw-0.03"]
    assert not [c for c in claims(results) if c.row == "retrained-universal" and c.column == "cw-0.03"]


def test_sentences_say_first_what_holds_then_what_does_not(results: dict[str, Any]) -> None:
    said = sentences(results)
    assert list(said)[:2] == ["What holds", "What does not hold"]
    assert "STL beats “No defence” outside the intervals on FGSM-0.08 (55.0 against 10.0 %) and CW-0.03" in " ".join(
        said["What holds"]
    )
    fails = said["What does not hold"]
    assert "STL does worse than “control: another”, outside the intervals, on CW-0.03 (26.0 against 45.0 %)." in fails
    assert "STL does not beat “control: another” outside the intervals on BIM-0.03 (35.0 against 30.0 %)." in fails
    named = " ".join(fails)
    assert sum(named.count(f"{c}-0.0") for c in ("FGSM", "BIM", "CW")) == len(
        [c for c in claims(results) if c.verdict != "beats"]
    )


def test_sentences_when_nothing_holds_and_when_all_holds(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        low = 0.5 if row["role"] == "defence" else 0.1
        for each in row["cells"].values():
            each.update(low=low, high=low + 0.1)
    said = sentences(results)
    assert said["What does not hold"] == [
        "Every comparison with no defence and with the controls holds outside the intervals."
    ]
    for row in results["rows"]:
        for each in row["cells"].values():
            each.update(low=0.1, high=0.2)
    assert sentences(results)["What holds"][0].startswith("Nothing")


def test_the_white_box_rows_are_called_an_upper_bound(results: dict[str, Any]) -> None:
    limit, universal, stratified, warning = sentences(results)["The white-box rows"]
    assert "only through the identity gradient (BPDA)" in limit
    assert "upper bound" in limit
    assert "(20 images, the same in both)" in universal
    assert "FGSM-0.08 37.5 against 55.0 % gray-box, lower, outside the intervals" in universal
    assert "BIM-0.03 30.0 against 35.0 % gray-box, the intervals overlap" in universal
    assert universal.endswith("CW-0.03 not run.")
    assert "FGSM-0.08 80.5 against 65.5 % gray-box, higher, outside the intervals" in stratified
    assert "no evidence of robustness" in warning


def test_the_cost_on_clean_images_and_the_strata(results: dict[str, Any]) -> None:
    said = sentences(results)
    universal, stratified, *_ = said["The cost on clean images"]
    assert universal.endswith("65.0 % of the clean images right, 20.0 points fewer than without a defence (85.0 %; "
                              "outside the intervals).")  # fmt: skip
    assert stratified.endswith("as many as without a defence (85.0 %).")
    assert said["The strata under attack"][0].startswith("Test images whose stratum an attack leaves as it was: 95.5 %")
    assert "STL (cluster) beats STL outside the intervals on Clean (85.0 against 65.0 %)" in " ".join(
        said["One dictionary or several"]
    )


def test_another_schema_is_refused(results: dict[str, Any]) -> None:
    results["schema"] = 2
    with pytest.raises(InputError, match="schema 2"):
        claims(results)
    del results["schema"]
    with pytest.raises(InputError, match="'schema'"):
        sentences(results)
