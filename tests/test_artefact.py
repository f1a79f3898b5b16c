"""Artefacts: tensors and card come back as they were; what is none is refused in one line with its name."""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import quasinat
from quasinat.artefact import (
    SCHEMA,
    check_tensors,
    file_digest,
    read_artefact,
    read_card,
    versions,
    write_artefact,
)
from quasinat.errors import InputError, OutputError
from quasinat.files import read_tensors, write_tensors

CARD: dict[str, Any] = {"name": "λ = 0.2", "curve": [0.1, 1 / 3, 1e-300], "nested": {"none": None, "yes": True}}
TENSORS = {
    "a": torch.arange(12.0).view(3, 4),
    "turned": torch.arange(12).view(3, 4).t(),
    "half": torch.tensor([1.5, -0.0, torch.inf], dtype=torch.bfloat16),
    "none": torch.empty(0, 3),
    "scalar": torch.tensor(7),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_artefact(tmp_path / "thing.safetensors", "thing", TENSORS, CARD)
    return tmp_path / "thing.safetensors"


def test_tensors_and_card_come_back(path: Path) -> None:
    tensors, card = read_artefact(path, "thing")
    assert tensors.keys() == TENSORS.keys()
    for name, ours in TENSORS.items():
        assert tensors[name].equal(ours)
        assert tensors[name].dtype == ours.dtype
    assert {name: card[name] for name in CARD} == CARD
    assert card.keys() == {*CARD, "schema", "kind", "versions"}
    assert (card["schema"], card["kind"]) == (SCHEMA, "thing") == (2, "thing")
    assert card["versions"] == versions()
    assert versions() == {
        "quasinat": quasinat.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    assert read_card(path) == card
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_equal_artefacts_are_equal_files(path: Path) -> None:
    content = path.read_bytes()
    assert file_digest(path) == hashlib.sha256(content).hexdigest()
    write_artefact(path, "thing", TENSORS, CARD)
    assert path.read_bytes() == content
    write_artefact(path, "thing", TENSORS, {**CARD, "name": "other"})
    assert file_digest(path) != hashlib.sha256(content).hexdigest()


def test_a_card_must_be_what_json_holds(path: Path) -> None:
    content = path.read_bytes()
    for bad, error in ((float("nan"), ValueError), (float("inf"), ValueError), (torch.zeros(1), TypeError)):
        with pytest.raises(error):
            write_artefact(path, "thing", TENSORS, {"value": bad})
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"cannot write .*file/thing.*; choose a folder"):
        write_artefact(tmp_path / "file" / "thing", "thing", TENSORS, CARD)
    assert (tmp_path / "file").read_text() == "mine"


def refused(path: Path, match: str) -> None:
    for read in (lambda: read_artefact(path, "thing"), lambda: read_card(path)):
        with pytest.raises(InputError, match=match) as caught:
            read()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_is_no_artefact_is_refused(path: Path) -> None:
    content = path.read_bytes()
    refused(path.with_name("nowhere"), "is missing; make it again, or check the path")
    refused(path.parent, "is missing")
    for length in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "is damaged .*; delete it and make it again")
    metadata = [None, {}, {"quasinat": ""}, *({"quasinat": text} for text in ("3", "null", "[2]", '"x"', "{}", "{"))]
    for each in metadata:
        write_tensors(path, TENSORS, each)
        refused(path, "is no artefact of quasinat; pass a file that `quasinat learn` made")


@pytest.mark.parametrize("schema", [1, 3, 99, "2", None])
def test_another_schema_is_named(path: Path, schema: object) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, {"quasinat": json.dumps({**json.loads(metadata["quasinat"]), "schema": schema})})
    refused(path, f"has schema {schema}, this version reads 2; learn it again")


def test_another_kind_is_named(path: Path) -> None:
    with pytest.raises(
        InputError, match=r"thing\.safetensors is a file of kind 'thing', not 'layer'; pass one of kind 'l"
    ):
        read_artefact(path, "layer")
    assert read_card(path)["kind"] == "thing"  # of any kind


@pytest.mark.parametrize(
    ("expected", "problem"),
    [
        ({"a": (3, 4), "b": (2,)}, None),
        ({"a": (3, 4), "b": (2,), "c": (1,)}, "a.st lacks the tensor c; learn it again"),
        ({"a": (4, 3), "b": (2,)}, r"a.st holds a of shape \(3, 4\), its card says \(4, 3\); learn it again"),
        ({"a": (3, 4), "b": (2, 1)}, r"a.st holds b of shape \(2,\), its card says \(2, 1\)"),
        ({"a": (3, 4)}, "a.st holds an unknown tensor b; learn it again"),
        ({}, "a.st holds an unknown tensor a"),
    ],
)
def test_tensors_are_held_against_what_the_card_says(expected: dict[str, tuple[int, ...]], problem: str | None) -> None:
    tensors: dict[str, Tensor] = {"a": torch.zeros(3, 4), "b": torch.zeros(2)}
    if problem is None:
        check_tensors(Path("a.st"), tensors, expected)
        return
    with pytest.raises(InputError, match=f"^{problem}"):
        check_tensors(Path("a.st"), tensors, expected)
