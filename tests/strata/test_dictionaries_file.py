"""Dictionaries as a file of their own: they come back equal to the bit; anything else is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from layers import dictionary_of
from quasinat.artefact import read_artefact, write_artefact
from quasinat.errors import InputError
from quasinat.sparse_coding import history
from quasinat.strata import load_dictionaries, save_dictionaries
from sparse_coding.unchecked import unchecked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "dictionaries.safetensors"
    made = [dictionary_of(3, seed, constraint="per-channel", zero_mean=True) for seed in range(3)]
    save_dictionaries(made, path, {"provenance": {"data": "photographs", "seed": 4}})
    return path


def test_dictionaries_come_back_equal(path: Path) -> None:
    dictionaries, card = load_dictionaries(str(path))
    assert len(dictionaries) == 3
    for seed, theirs in enumerate(dictionaries):
        ours = dictionary_of(3, seed, constraint="per-channel", zero_mean=True)
        assert theirs.filters.equal(ours.filters)
        assert theirs.filters.dtype == ours.filters.dtype
        assert history(theirs) == history(ours)
        assert (theirs.curve, theirs.held_out) == ((3.0, 2.0 + seed), (2.5, 1.5, 1.25))
        assert (theirs.constraint, theirs.zero_mean, theirs.reseeded) == ("per-channel", True, seed)
    assert card["provenance"] == {"data": "photographs", "seed": 4}
    assert (card["kind"], card["schema"], card["shape"]) == ("dictionaries", 2, [3, 8, 3, 5, 5])
    content = path.read_bytes()
    save_dictionaries(dictionaries, path, {"provenance": card["provenance"]})
    assert path.read_bytes() == content


def refused(path: Path, match: str) -> None:
    with unchecked(), pytest.raises(InputError, match=match) as caught:
        load_dictionaries(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"filters": None}, "lacks the tensor filters; learn it again"),
        ({"filters": torch.zeros(3, 8, 3, 5, 4)}, r"holds filters of shape \(3, 8, 3, 5, 4\), its card says"),
        ({"more": torch.zeros(1)}, "holds an unknown tensor more"),
    ],
)
def test_tensors_that_do_not_fit_the_card_are_refused(
    path: Path, tensors: dict[str, Tensor | None], problem: str
) -> None:
    whole, card = read_artefact(path, "dictionaries")
    changed = {name: value for name, value in {**whole, **tensors}.items() if value is not None}
    write_artefact(path, "dictionaries", changed, card)
    refused(path, problem)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": None},
        {"dictionaries": None},
        {"dictionaries": [{}, {}]},
        {"dictionaries": ["a", "b", "c"]},
        {"dictionaries": [{"constraint": "joint"}] * 3},
        {"dictionaries": [{"constraint": "joint", "sparsity": 0.1, "colour": "red"}] * 3},
    ],
)
def test_a_card_that_is_wrong_is_refused(path: Path, changes: dict[str, Any]) -> None:
    tensors, card = read_artefact(path, "dictionaries")
    write_artefact(path, "dictionaries", tensors, card | changes)
    refused(path, r"is incomplete or wrong \(.*; learn them again")
    for name in changes:
        write_artefact(path, "dictionaries", tensors, {key: value for key, value in card.items() if key != name})
        refused(path, rf"is incomplete or wrong \('{name}'\)")


def test_another_file_is_refused(path: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is missing")
    content = path.read_bytes()
    for length in (0, 100, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "is damaged")
    write_artefact(path, "strata", {"filters": torch.zeros(1)}, {})
    refused(path, "is a file of kind 'strata', not 'dictionaries'")
