"""The tables: their files, every row filled at a tiny size, resumed, shared, and put on a page."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.tiny_cifar10 import tiny_cifar10
from quasinat import cli
from quasinat.artefact import read_card
from quasinat.data import Dataset
from quasinat.defences.registry import DEFENCES, NEEDS
from quasinat.errors import InputError, UsageError
from quasinat.evaluation import CORRUPTIONS, calibration, corrupted, psnr
from quasinat.experiments import (
    columns,
    kept_attacks,
    table_attacks,
    table_cells,
    table_learned,
    table_parts,
    table_places,
    table_run,
    table_spec,
)
from quasinat.experiments.table_attacks import column_attack
from quasinat.experiments.table_checks import check_table
from quasinat.experiments.table_images import balanced, image_set_named
from quasinat.experiments.table_learned import LEARNED
from quasinat.experiments.table_networks import NETWORKS
from quasinat.experiments.table_places import content_hash, places, share_of
from quasinat.experiments.table_run import open_parts, run_tables
from quasinat.experiments.table_settings import PRESETS, TableSettings, table_settings
from quasinat.experiments.table_spec import known_rows, table_named, table_names
from quasinat.files import read_tensors
from quasinat.layer import SparseTransformationLayer
from quasinat.networks import load_classifier
from quasinat.report.table_figures import map_figure, sweep_figure
from quasinat.report.table_sheet import table_markdown
from quasinat.training.checkpoint import digest

TINY = replace(
    PRESETS["smoke"],
    train=50,
    test=10,
    epochs=1,
    adversarial_epochs=1,
    bim_steps=2,
    cw_steps=2,
    cw_search_steps=1,
    white_box_images=2,
    white_box_steps=1,
    expectation=2,
    adversarial_steps=1,
    patches=300,
    atoms=60,
    magnet_epochs=1,
    pixelcnn_epochs=1,
    pixelcnn_images=10,
    autoencoder_epochs=1,
    dictionary_images=8,
    filters=6,
    filter_size=5,
    crops=2,
    votes=3,
)
FILLED = [
    *(table_named(name) for name in ("table1", "table4", "table5", "table8a")),
    replace(
        table_named("corruptions"),
        columns=("clean", "gaussian-noise-1", "shot-noise-5", "gaussian-blur-2", "jpeg-3", "jpeg-5"),
    ),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A CIFAR-10 of fifty training and ten test images."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        tiny_cifar10(folder, patch)
        yield folder


@pytest.fixture(scope="module")
def filled(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The tables of CIFAR-10, whole but for the severities of the corruptions."""
    out = tmp_path_factory.mktemp("out")
    return out, run_tables(FILLED, "tiny", TINY, root, out, device="cpu")


def test_every_table_is_one_of_the_papers_and_its_rows_are_known() -> None:
    assert table_names() == [
        "corruptions",
        "figure5",
        "figure7",
        "longer",
        "quilting",
        "table1",
        "table2a",
        "table2b",
        "table3",
        "table4",
        "table5",
        "table6a",
        "table6b",
        "table7",
        "table8a",
        "table8b",
        "variants",
    ]
    for name in table_names():
        table = table_named(name)
        check_table(table)
        assert {row.key for row in table.rows} >= set(table.paper)
        keys = [row.key for row in table.all_rows]
        assert len(keys) == len(set(keys))
        for column in table.columns:
            if column != "clean" and column.rpartition("-")[0] not in CORRUPTIONS:
                assert callable(column_attack(column.replace("universal", "fgsm"), TINY, pytest.fail))


def test_a_sweep_has_a_row_for_every_value_and_its_layers_differ_in_that_alone(root: Path, tmp_path: Path) -> None:
    seventh = table_named("figure7")
    assert [sweep.axis for sweep in seventh.sweeps] == ["K", "S", "M"]
    assert seventh.sweeps[1].rows[0].learns == "universal layer:filter_size=4"
    for sweep in (*seventh.sweeps, *table_named("figure5").sweeps):
        assert len(sweep.rows) == len(sweep.values) == len({row.key for row in sweep.rows})
    for only in ("S-4", "S-6", "M-2"):
        result = run_tables([seventh], "tiny", TINY, root, tmp_path, only=only, device="cpu")["figure7"]
    learned = tmp_path / "cifar10-tiny" / "learned"
    sides = [
        SparseTransformationLayer.load(learned / f"universal-layer-filter_size={side}.safetensors").filters.shape[-2:]
        for side in (4, 6)
    ]
    assert sides == [(4, 4), (6, 6)]
    assert len(SparseTransformationLayer.load(learned / "layer-strata=2.safetensors").filters) == 2
    assert result["sweeps"]["S"] == [[4, "S-4"], [6, "S-6"], [8, "S-8"], [10, "S-10"], [12, "S-12"]]
    assert [row["cells"]["clean"]["status"] for row in result["rows"][4:7]] == ["done", "done", "not run"]
    figure = sweep_figure(result)
    assert figure is not None
    assert figure.count("<svg") == 1
    assert map_figure(result) is None


def test_the_psnr_of_a_transformation_is_between_what_it_makes_of_attacked_images_and_the_clean_ones(
    filled: tuple[Path, dict[str, dict[str, Any]]], root: Path
) -> None:
    steps = filled[0] / "cifar10-tiny" / "steps"
    clean = image_set_named("cifar10", root, TINY).test_images
    seen = read_tensors(steps / "median-of-fgsm-0.08-000000.safetensors")[0]["images"]
    rows = {row["key"]: row["cells"]["fgsm-0.08"] for row in filled[1]["table5"]["rows"]}
    assert rows["median"]["psnr"] == pytest.approx(float(psnr(seen, clean).mean()), rel=1e-5)
    assert "psnr" not in rows["none"]
    assert "psnr" not in rows["resize-pad"]
    figure = map_figure(filled[1]["table5"])
    assert figure is not None
    assert sweep_figure(filled[1]["table5"]) is None
    assert map_figure(filled[1]["corruptions"]) is None  # which are no attacks


def test_every_row_names_what_exists() -> None:
    for row in known_rows().values():
        assert [row.defence, row.network, row.control_of].count(None) >= 2
        if row.network is not None:
            assert row.network in NETWORKS
        if row.defence is not None:
            name = row.defence.partition(":")[0]
            assert name in DEFENCES
            wanted = NEEDS.get(name)
            kind, _, changed = (row.learns or "").partition(":")
            assert kind.removeprefix("universal ") == (wanted or "")
            assert kind in ("", "classifier", *LEARNED)
            assert not changed or hasattr(TINY, changed.partition("=")[0])
    used = {row.network for row in known_rows().values()} - {None}
    assert used == set(NETWORKS)


def test_every_cell_can_be_filled(filled: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    _, results = filled
    assert list(results) == [table.name for table in FILLED]
    for table, (name, result) in zip(FILLED, results.items(), strict=True):
        assert [row["key"] for row in result["rows"]] == [row.key for row in table.all_rows]
        matched = set(table.matched.values())
        for row in result["rows"]:
            assert list(row["cells"]) == list(table.all_columns)
            for column, cell in row["cells"].items():
                if column in matched and cell["status"] == "none":
                    assert "of the clean images right; no attack brings it to" in cell["reason"]
                    continue
                assert cell["status"] == "done", (name, row["key"], column, cell)
                assert cell["n"] == (2 if result["threat"] == "white-box" else 10)
                assert 0 <= cell["low"] <= cell["value"] <= cell["high"] <= 1


def test_a_cell_is_what_its_images_say(filled: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    out, results = filled
    row = next(row for row in results["table1"]["rows"] if row["key"] == "jpeg")
    kept = read_tensors(out / "cifar10-tiny" / "steps" / "cell-retrained-jpeg-fgsm-0.08.safetensors")[0]["right"]
    assert row["cells"]["fgsm-0.08"]["value"] == pytest.approx(float(kept.float().mean()))
    strengths = results["table1"]["strengths"]
    assert strengths["fgsm-0.08"]["dissimilarity"] == pytest.approx(0.08, abs=4e-3)
    assert strengths["fgsm-0.04"]["dissimilarity"] == pytest.approx(0.04, abs=2e-3)
    assert strengths["bim-0.03"]["dissimilarity"] <= 0.03 + 1e-5


def test_a_matched_attack_leaves_the_vanilla_network_what_the_paper_prints(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that has six of ten images right and keeps four, brought to five: the same directions, less far."""
    table = replace(table_named("table1"), paper={"none": {"clean": 0.9, "fgsm-0.08": 0.5, "bim-0.03": 0.5}})
    assert table.matched == {"fgsm-0.08": "fgsm-0.08@0.5", "bim-0.03": "bim-0.03@0.5"}
    settings = replace(TINY, epochs=40, bim_steps=10)
    result = run_tables([table], "tiny", settings, root, tmp_path, only="none", device="cpu")["table1"]
    cells, used = result["rows"][0]["cells"], result["strengths"]
    assert cells["clean"]["value"] > 0.5
    for stated, column in table.matched.items():
        assert cells[column]["value"] == used[column]["accuracy"]
        assert cells[column]["value"] == pytest.approx(0.5, abs=0.1 + 1e-6)
        assert 0 < used[column]["share"] < 1
        assert used[column]["dissimilarity"] < used[stated]["dissimilarity"]
        assert used[column]["dissimilarity"] == pytest.approx(
            used[column]["share"] * float(stated.rpartition("-")[2]), rel=0.1
        )
    page = table_markdown(result)
    assert "**Strength-matched**" in page
    assert "| fgsm-0.08, matched |" in page


def test_a_control_is_the_retrained_network_without_the_transformation(
    filled: tuple[Path, dict[str, dict[str, Any]]], root: Path
) -> None:
    folder = filled[0] / "cifar10-tiny"
    network = load_classifier(folder / "networks" / "on-stl.safetensors").eval()
    images = read_tensors(folder / "steps" / "fgsm-0.08-on-vanilla.safetensors")[0]["images"]
    labels = image_set_named("cifar10", root, TINY).test_labels
    right = read_tensors(folder / "steps" / "cell-retrained-stl-control-fgsm-0.08.safetensors")[0]["right"]
    assert right.equal(network(images).argmax(1) == labels)


def test_corrupted_images_are_those_of_the_severity_and_each_clean_cell_has_its_calibration(
    filled: tuple[Path, dict[str, dict[str, Any]]], root: Path
) -> None:
    steps = filled[0] / "cifar10-tiny" / "steps"
    images = image_set_named("cifar10", root, TINY).test_images
    made = read_tensors(steps / "jpeg-3-on-vanilla.safetensors")[0]["images"]
    assert made.equal(corrupted(images, "jpeg", 3))
    result = filled[1]["corruptions"]
    kept = read_tensors(steps / "cell-retrained-tvm-clean.safetensors")[0]
    cell = next(row for row in result["rows"] if row["key"] == "tvm")["cells"]["clean"]
    assert cell["calibration_error"] == pytest.approx(calibration(kept["confidence"], kept["right"]).error)
    assert f"| TVM | {100 * cell['calibration_error']:.1f} |" in table_markdown(result)
    assert "jpeg-5" in result["strengths"]


def test_the_tables_meet_the_same_vanilla_classifier_and_images(filled: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    _, results = filled
    first, fifth = ({row["key"]: row["cells"] for row in results[name]["rows"]} for name in ("table1", "table5"))
    for column, cell in first["none"].items():
        if cell["status"] == "none":
            continue
        assert cell | {"seconds": 0} == fifth["none"][column] | {"seconds": 0}
    assert results["table1"]["strengths"] == results["table5"]["strengths"]


def test_the_same_call_again_computes_nothing(
    filled: tuple[Path, dict[str, dict[str, Any]]], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, results = filled
    monkeypatch.setattr(table_run, "cell", lambda *_: pytest.fail("a cell was computed again"))
    again = run_tables([table_named("table1")], "tiny", TINY, root, out, device="cpu")
    assert again["table1"] == results["table1"]


def test_a_run_that_is_stopped_goes_on_and_ends_the_same(
    filled: tuple[Path, dict[str, dict[str, Any]]], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = table_cells.cell, []

    def stopping(*arguments: Any) -> Any:
        seen.append(arguments[1:3])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    table, only = table_named("table1"), "median/*"
    with monkeypatch.context() as patch:
        patch.setattr(table_run, "cell", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_tables([table], "tiny", TINY, root, tmp_path, only=only, device="cpu")
    result = run_tables([table], "tiny", TINY, root, tmp_path, only=only, device="cpu")["table1"]
    whole = {row["key"]: row["cells"] for row in filled[1]["table1"]["rows"]}
    found = {row["key"]: row["cells"] for row in result["rows"]}
    for column, cell in found["median"].items():
        assert cell | {"seconds": 0} == whole["median"][column] | {"seconds": 0}
    assert found["jpeg"]["clean"] == {"status": "not run"}


def test_a_cells_hash_is_of_all_that_decides_it_and_of_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    first, fifth = places([table_named("table1")]), places([table_named("table5")])
    hashes = [content_hash(place, TINY) for place in (*first, *fifth)]
    names = [place.name for place in (*first, *fifth)]  # one in both tables, where a row transforms nothing
    assert len(set(hashes)) == len(set(names)) == len(names) - sum(not place.depends_on_threat for place in fifth)
    assert hashes[0] == content_hash(places([table_named("table8a")])[0], TINY)  # a cell of both tables
    assert hashes[0] != content_hash(first[0], replace(TINY, seed=1))
    monkeypatch.setattr(table_places, "code_fingerprint", lambda: "other")
    assert hashes[0] != content_hash(first[0], TINY)


def test_shares_are_all_rows_once() -> None:
    table = table_named("table1")
    every = places([table])
    shares = [share_of(every, (i, 3)) for i in (1, 2, 3)]
    assert sorted(place.name for share in shares for place in share) == sorted(place.name for place in every)
    assert all(shares)


def test_what_fails_is_a_status_and_not_the_end(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(parts: Any, row: Any, column: str, threat: str) -> Any:
        raise InputError("the images are mouldy", "dry them")

    monkeypatch.setattr(table_run, "cell", failing)
    result = run_tables([table_named("table8a")], "tiny", TINY, root, tmp_path, only="none/clean", device="cpu")[
        "table8a"
    ]
    cell = result["rows"][0]["cells"]["clean"]
    assert cell == {"status": "failed", "reason": "the images are mouldy; dry them"}
    page = table_markdown(result)
    assert "| No defence | failed (93) |" in page
    assert "- No defence: the images are mouldy; dry them" in page


def test_a_page_has_ours_with_its_interval_and_the_papers(filled: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    result = filled[1]["table4"]
    page = table_markdown(result)
    row = next(row for row in result["rows"] if row["key"] == "magnet")
    cell = row["cells"]["pgd-linf-0.031"]
    apart = f"{round(100 * (cell['value'] - 0.1)):+d}".replace("-", "−").replace("+0", "0")
    assert f"{100 * cell['value']:.1f} ± {50 * (cell['high'] - cell['low']):.1f} (10, {apart})" in page
    assert "| *TRADES* |" in page
    assert "flagged" in page
    assert "cifar10, 50 training and 10 test images of 3 × 32 × 32; vgg-small" in page


def test_an_attack_without_its_size_is_meant_at_every_strength() -> None:
    meant = places([table_named("table1")], "stl-cluster/fgsm")
    assert [place.column for place in meant] == ["fgsm-0.08", "fgsm-0.04", "fgsm-0.08@0.5816", "fgsm-0.04@0.6523"]
    assert {place.row.key for place in meant} == {"stl-cluster"}
    assert [place.column for place in places([table_named("table1")], "none/bim-0.03")] == ["bim-0.03"]


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("stl-clutser/bim-0.03", "means no cell; of the rows, did you mean 'stl-cluster'"),
        ("tvm/fsgm-0.08", "means no cell; of the columns, did you mean 'fgsm-0.08'"),
        ("tvm/fg", "means no cell; of the columns, "),
    ],
)
def test_a_cell_that_is_not_there_is_refused(only: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        places([table_named("table1")], only)


@pytest.mark.parametrize(
    ("train", "test", "left"), [(6, 4, (3, 2)), (20, 4, (4, 2)), (20, 20, (10, 5)), (8, 20, (4, 2))]
)
def test_a_set_of_uneven_classes_is_cut_to_its_smallest_or_taken_whole(
    train: int, test: int, left: tuple[int, int]
) -> None:
    """Two classes, of 6 and 4 training and of 3 and 2 test images."""
    labels = [torch.tensor([0] * many + [1] * few) for many, few in ((6, 4), (3, 2))]
    images = [torch.rand(len(each), 3, 8, 8) for each in labels]
    uneven = Dataset("uneven", images[0], labels[0], images[1], labels[1], ("a", "b"))
    cut = balanced(uneven, replace(TINY, train=train, test=test))
    whole = left == (10, 5)
    assert cut.train_labels.bincount().tolist() == ([6, 4] if whole else [left[0]] * 2)
    assert cut.test_labels.bincount().tolist() == ([3, 2] if whole else [left[1]] * 2)


def test_the_variants_move_one_choice_each(root: Path, tmp_path: Path) -> None:
    table = table_named("variants")
    assert [sweep.axis for sweep in table.sweeps][1:3] == ["solver tolerance", "autoencoder epochs"]
    assert len({row.key for row in table.all_rows}) == len(table.all_rows)
    for only in ("solver-tolerance-0.1/clean", "autoencoder-epochs-2/clean", "training-epochs-10/clean"):
        run_tables([table], "tiny", TINY, root, tmp_path, only=only, device="cpu")
    folder = tmp_path / "cifar10-tiny"
    card = read_card(folder / "learned" / "layer-autoencoder_epochs=2.safetensors")
    assert card["provenance"]["autoencoder"]["epochs"] == 2
    parts = open_parts("cifar10", "tiny", TINY, root, tmp_path, device="cpu")
    rough, usual = (parts.transform(row).module for row in (table.sweeps[1].rows[0], known_rows()["stl-cluster"]))
    assert (rough.solver.tolerance, usual.solver.tolerance) == (0.1, table.sweeps[1].default.value) == (0.1, 1e-2)
    images = parts.data.test_images
    assert not rough(images).equal(usual(images))
    torch.testing.assert_close(rough(images), usual(images), rtol=0, atol=0.1)


def test_the_longer_trained_control_differs_from_the_control_in_its_epochs_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: dict[str, int] = {}
    monkeypatch.setattr(
        table_parts.Parts, "_train", lambda self, name, network, images, train, number: epochs.update({name: number})
    )
    parts = open_parts("cifar10", "tiny", TINY, root, tmp_path, device="cpu")
    networks = [NETWORKS[name](parts)[0] for name in ("control", "control-60")] + [parts.vanilla()]
    control, longer, vanilla = (digest(*network.parameters()) for network in networks)  # not trained here
    assert epochs == {"control": TINY.epochs, "control-60": 60, "vanilla": TINY.epochs}
    assert control == longer != vanilla
    assert table_named("longer").sweeps[0].rows[0].epochs == 60


def test_the_quiltings_differ_in_their_bank_and_in_their_draw(root: Path, tmp_path: Path) -> None:
    table = replace(table_named("quilting"), data="cifar10")
    run_tables([table], "tiny", TINY, root, tmp_path, only="patches-1000/clean", device="cpu")
    parts = open_parts("cifar10", "tiny", TINY, root, tmp_path, device="cpu")
    few, nearest = (sweep.rows[0] for sweep in table.sweeps)
    small, drawn, usual = (parts.transform(row).module for row in (few, nearest, known_rows()["quilting"]))
    assert len(usual.bank) == len(drawn.bank) <= TINY.patches < len(small.bank) <= 1000  # equal patches count once
    assert [made.neighbours for made in (small, drawn, usual)] == [1, 10, table.sweeps[1].default.value] == [1, 10, 1]


def test_what_is_unknown_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no table 'tabel1'; did you mean 'table1'"):
        table_named("tabel1")
    with pytest.raises(UsageError, match="unknown preset 'smal'; did you mean 'small'"):
        table_settings("smal")
    with pytest.raises(UsageError, match="test is 0; give a number above 0"):
        TableSettings(test=0)
    with pytest.raises(UsageError, match="no column 'fsgm"):
        column_attack("fsgm-0.08", TINY, pytest.fail)
    with pytest.raises(UsageError, match="has no size"):
        column_attack("fgsm-big", TINY, pytest.fail)
    with pytest.raises(InputError, match="imagenet10"):
        run_tables([table_named("table2a")], "tiny", TINY, root, tmp_path, device="cpu")
    good = tomllib.loads('title = "T"\nrows = ["none"]\nmore = []\npaper = {}\nthreat = "vanilla"\ncolums = []')
    monkeypatch.setattr(table_spec, "_read", lambda name: good)
    table_spec.table_named.cache_clear()
    with pytest.raises(InputError, match="unknown key 'colums'; did you mean 'columns'"):
        table_named("table1")
    table_spec.table_named.cache_clear()


@pytest.mark.parametrize(
    ("default", "said"),
    {
        '{ row = "K-{filters}", value = "filtres" }': "unknown setting 'filtres'; did you mean 'filters'",
        '{ row = "k-{filters}", value = 64 }': "unknown row 'k-64'; did you mean 'K-64'",
        '{ row = "K-64", valeu = 64 }': "unknown key 'valeu'; did you mean 'value'",
        '{ row = "K-{filtres}", value = 64 }': "figure7.toml is no table",
        '{ row = "K-64" }': "figure7.toml is no table",
    }.items(),
)
def test_the_default_of_a_sweep_is_checked(default: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(table_spec.__file__).parent / "figures" / "figure7.toml"
    text = path.read_text(encoding="utf-8").replace('{ row = "K-{filters}", value = "filters" }', default)
    table_spec.known_rows()  # the package's own
    monkeypatch.setattr(table_spec, "_read", lambda name: tomllib.loads(text))
    with pytest.raises(InputError, match=said):
        table_spec.table_named.__wrapped__("figure7")


def test_the_command_fills_a_cell_and_prints_the_table(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    command = [
        "run",
        "table5",
        "--preset",
        "smoke",
        "--root",
        str(root),
        "--out",
        str(tmp_path),
        "--only",
        "mean/clean",
    ]
    assert cli.run([*command, "--dry-run"]) == 0
    listed = capsys.readouterr().out
    assert re.fullmatch(r"table5  mean/clean  [0-9a-f]{12}  to do\n", listed)
    assert not any(tmp_path.iterdir())
    assert cli.run([*command, "--device", "cpu"]) == 0
    assert "## Table 5, preset smoke" in capsys.readouterr().out
    assert cli.run([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out == listed.replace("to do", "done")
    monkeypatch.setitem(PRESETS, "smoke", replace(TINY, epochs=2))
    assert cli.run([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("to do\n")
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    assert json.loads((tmp_path / "table5-smoke.json").read_text())["table"] == "table5"
    assert (tmp_path / "table5-smoke.md").is_file()
    assert cli.run([*command, "--device", "cpu", "--shard", "2/1"]) == 2


def test_a_thermometer_is_in_good_hands_only_against_both_derivatives(
    filled: tuple[Path, dict[str, dict[str, Any]]], root: Path
) -> None:
    steps = filled[0] / "cifar10-tiny" / "steps"
    network = load_classifier(filled[0] / "cifar10-tiny" / "networks" / "thermometer.safetensors").eval()
    labels = image_set_named("cifar10", root, TINY).test_labels[:2]
    right = torch.ones(2, dtype=torch.bool)
    made = []
    for way in ("", "-nearest"):
        images = read_tensors(steps / f"pgd-linf-0.031-on-thermometer{way}.safetensors")[0]["images"]
        right &= network(images).argmax(1) == labels
        made.append(images)
    assert not made[0].equal(made[1])
    assert read_tensors(steps / "cell-white-box-thermometer-pgd-linf-0.031.safetensors")[0]["right"].equal(right)


def test_the_worse_of_two_attacks_is_taken_image_by_image() -> None:
    sure = torch.tensor([0.5, 0.9, 0.6])
    pairs = (([True, True, False], sure), ([True, False, True], 1 - sure))
    one, other = (table_cells.Cell(torch.tensor(right), confidence) for right, confidence in pairs)
    assert table_cells._worse(one, other).right.tolist() == [True, False, False]


@pytest.mark.parametrize("side", [20, 32, 48])
def test_a_pixelcnn_learns_on_a_crop_of_each_large_image(side: int, generator: torch.Generator) -> None:
    images = torch.rand(4, 3, side, side + 3, generator=generator)
    crops = table_learned._cropped(images, 32, generator)
    assert crops.shape == (4, 3, min(side, 32), min(side + 3, 32))
    for image, crop in zip(images, crops, strict=True):
        windows = image.unfold(1, crop.shape[1], 1).unfold(2, crop.shape[2], 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert any(window.equal(crop) for window in windows)


def test_an_attack_that_is_cut_goes_on_where_it_was_and_leaves_the_same_images(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batches of two images and pieces of two batches, cut in the second piece of ten images."""
    for module in (columns, table_parts):
        monkeypatch.setattr(module, "batch_size", lambda images: 2)
    monkeypatch.setattr(table_parts, "ATTACKED", 2)
    monkeypatch.setattr(table_parts, "WHITE_BOX", 3)
    whole = open_parts("cifar10", "tiny", TINY, root, tmp_path / "whole", device="cpu").adversarial("bim-0.03")
    parts = open_parts("cifar10", "tiny", TINY, root, tmp_path / "cut", device="cpu")
    seen: list[int] = []

    def cut(*arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(len(arguments[2]))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return columns.attacked(*arguments, **options)

    monkeypatch.setattr(kept_attacks, "attacked", cut)
    with pytest.raises(KeyboardInterrupt):
        parts.adversarial("bim-0.03")
    assert parts.adversarial("bim-0.03").equal(whole)
    assert seen == [4, 4, 4, 2]
    parts.attacked("stl", "bim-0.03", parts.vanilla, parts.data.test_images, parts.labels())
    assert seen[4:] == [3, 3, 3, 1]
    assert not [path.name for path in parts.workspace.steps.iterdir() if "=" in path.name]
    parts.matched("bim-0.03", 0.05)
    left = {path.name for path in parts.workspace.steps.iterdir() if path.name.startswith("bim-")}
    kept = ("bim-0.03-on-vanilla", "bim-0.03@0.05-on-vanilla", "bim-0.03-on-stl")
    assert left <= {f"{name}.safetensors" for name in kept}


@pytest.mark.parametrize("name", ["bim", "deepfool"])
def test_an_attack_of_one_strength_is_cut_and_goes_on_with_the_batches_that_it_has(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten images in batches of four: whatever strengths are tried, no batch is attacked twice at one of them."""
    monkeypatch.setattr(table_parts, "batch_size", lambda images: 4)
    column, seen = f"{name}-mean-0.06", []
    whole = open_parts("cifar10", "tiny", TINY, root, tmp_path / "whole", device="cpu").adversarial(column)
    parts = open_parts("cifar10", "tiny", TINY, root, tmp_path / "cut", device="cpu")
    attack = getattr(table_attacks, name)

    def cut(*arguments: Any, **options: Any) -> Any:
        seen.append((options.get("budget"), digest(arguments[1])))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return attack(*arguments, **options)

    monkeypatch.setattr(table_attacks, name, cut)
    with pytest.raises(KeyboardInterrupt):
        parts.adversarial(column)
    assert parts.adversarial(column).equal(whole)
    assert seen.pop(1) == seen[1]
    assert len(seen) == len(set(seen)) >= 3
    assert not [path.name for path in parts.workspace.steps.iterdir() if "=" in path.name]


def test_each_images_outcome_is_beside_the_result_and_adds_up_to_it(
    filled: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    out, results = filled
    for name in ("table1", "table4"):
        with np.load(out / f"{name}-tiny.npz") as file:
            arrays = dict(file)
        count = len(arrays["labels"])
        assert count == 10
        seen = {"labels"}
        for row in results[name]["rows"]:
            for column, cell in row["cells"].items():
                key = f"{row['key']}/{column}"
                if cell["status"] != "done":
                    assert key not in arrays
                    continue
                seen |= {key} | ({f"{key}/flagged"} if "flagged" in cell else set())
                assert arrays[key].shape == (cell["n"],)
                assert float(arrays[key].mean()) == pytest.approx(cell["value"])
                if "flagged" in cell:
                    assert float(arrays[f"{key}/flagged"].mean()) == pytest.approx(cell["flagged"])
        assert seen == set(arrays)
