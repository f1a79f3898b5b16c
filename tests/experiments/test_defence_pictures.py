"""The pictures of the defences: which images, what is shown of them, and the command."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.tiny_cifar10 import tiny_cifar10
from quasinat import cli
from quasinat.defences import jpeg
from quasinat.errors import UsageError
from quasinat.experiments.defence_pictures import DefencePictures, Strip, _shown, defence_pictures
from quasinat.experiments.table_parts import Parts
from quasinat.experiments.table_run import open_parts
from quasinat.experiments.table_settings import PRESETS
from quasinat.experiments.table_spec import Row, Table, table_named
from quasinat.report.defence_sheet import defence_sheet, described
from report.test_sheets import check_clean

TINY = replace(PRESETS["smoke"], train=50, test=10, epochs=1)
FEW = ("none", "jpeg", "resize-pad", "crops", "sap")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A CIFAR-10 of fifty training and ten test images."""
    folder = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        tiny_cifar10(folder, patch)
        yield folder


@pytest.fixture(scope="module")
def parts(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Where they are made."""
    return open_parts("cifar10", "tiny", TINY, root, tmp_path_factory.mktemp("out"), device="cpu")


def of_few(name: str, rows: tuple[str, ...] = FEW) -> Table:
    """A table with some of its rows."""
    table = table_named(name)
    chosen: tuple[Row, ...] = tuple(row for row in table.all_rows if row.key in rows)
    return replace(table, rows=chosen, more=())


def test_the_strips_are_what_the_transformations_make(parts: Parts) -> None:
    pictures = defence_pictures(parts, of_few("table5"), "fgsm-0.08", 4)
    first, *defences, last = pictures.strips
    assert [strip.label for strip in defences] == ["Random crops", "JPEG 75", "Random resize and pad"]
    clean = parts.data.test_images
    numbers = [next(i for i, image in enumerate(clean) if image.equal(shown)) for shown in last.images]
    assert parts.labels()[numbers].tolist() == list(pictures.labels)
    assert first.images.equal(parts.adversarial("fgsm-0.08")[numbers])
    assert defences[1].images.equal(jpeg(first.images))
    assert defences[2].images.shape[-1] > 32
    with torch.no_grad():
        assert tuple(parts.vanilla()(defences[1].images).argmax(1).tolist()) == defences[1].seen


def test_behind_a_retrained_table_stands_the_defences_own_classifier(parts: Parts) -> None:
    table = of_few("table1", ("jpeg",))
    strip = defence_pictures(parts, table, "fgsm-0.04", 3).strips[1]
    with torch.no_grad():
        assert tuple(parts.retrained(table.rows[0])(strip.images).argmax(1).tolist()) == strip.seen


def test_the_first_of_each_class_that_the_attack_fools_comes_first() -> None:
    labels = torch.tensor([0, 1, 0, 1, 2, 0])
    fooled = torch.tensor([False, True, True, True, False, True])
    assert _shown(fooled, labels, 3).tolist() == [2, 1, 4]
    assert _shown(fooled, labels, 5).tolist() == [2, 1, 4, 5, 3]


def test_what_cannot_be_shown_is_refused(parts: Parts) -> None:
    with pytest.raises(UsageError, match=r"table4 has no images under pgd-linf-0\.031; name a table of gray-box"):
        defence_pictures(parts, of_few("table4"), "pgd-linf-0.031", 2)
    with pytest.raises(UsageError, match=r"table5 has no images under clean; name one of fgsm-0\.08"):
        defence_pictures(parts, of_few("table5"), "clean", 2)
    with pytest.raises(UsageError, match="--images 11 of 10 test images"):
        defence_pictures(parts, of_few("table5"), "fgsm-0.08", 11)


def test_only_some_are_shown_where_a_row_is_named(parts: Parts) -> None:
    labels = [strip.label for strip in defence_pictures(parts, of_few("table5"), "fgsm-0.08", 2, "jp*").strips]
    assert labels == ["Adversarial", "JPEG 75", "Clean"]
    with pytest.raises(UsageError, match="--only jpg means no row; did you mean 'jpeg'"):
        defence_pictures(parts, of_few("table5"), "fgsm-0.08", 2, "jpg")


def test_the_numbers_beside_the_pictures() -> None:
    clean = torch.full((2, 3, 8, 8), 0.5)
    strips = (
        Strip("Adversarial", clean + 0.1, (1, 1)),
        Strip("Larger", torch.zeros(2, 3, 9, 9), (0, 0)),
        Strip("Clean", clean, (0, 1)),
    )
    pictures = DefencePictures(strips, (0, 1), ("cat", "dog"), "fgsm-0.08")
    said = described(pictures)
    assert [strip["psnr"] for strip in said["strips"]] == [pytest.approx(20, abs=1e-4), None, None]
    assert said["strips"][0]["seen"] == ["dog", "dog"]
    assert said["labels"] == ["cat", "dog"]
    words = [text.get_text() for text in defence_sheet(pictures, title="T", note="N").figure.texts]
    assert {"T", "N", "cat", "dog", "✗ dog", "✓ dog", "1 of 2 right", "2 of 2 right", "PSNR 20.0 dB"} <= set(words)


def test_the_names_of_classes_are_whole_and_over_no_picture() -> None:
    images = torch.full((3, 3, 8, 8), 0.5)
    strips = (Strip("Adversarial", images, (2, 0, 1)), Strip("Clean", images, (0, 1, 2)))
    classes = ("Rhodesian ridgeback", "n02102040", "363")
    sheet = defence_sheet(DefencePictures(strips, (0, 1, 2), classes, "fgsm-0.08"), title="T")
    words = [text.get_text() for text in sheet.figure.texts]
    assert not any("…" in said for said in words)
    assert {"Rhodesian", "ridgeback", "English", "springer", "class 363", "✗ class 363", "✗ Rhodesian"} <= set(words)
    check_clean(sheet)


def test_the_command_draws_them(
    root: Path, parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "smoke", TINY)
    monkeypatch.setattr("quasinat.experiments.table_spec.table_named", of_few)
    picture = tmp_path / "page.png"
    command = ["show", "defences", "table5", "--preset", "smoke", "--root", str(root), "--run", str(tmp_path)]
    assert cli.run([*command, "--out", str(picture), "--images", "2", "--device", "cpu", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["strips"]) == 5
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.run([*command, "--out", str(tmp_path / "page.gif")]) == 2
